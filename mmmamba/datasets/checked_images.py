"""Data sets that go on without an image that cannot be used, and say so."""
from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import torch
from mmcv.transforms import Compose, LoadImageFromFile
from mmdet.datasets import VOCDataset
from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from mmmamba.datasets.transforms.load_checked_image import LoadCheckedImage, UnreadableImageError, check_frame
from mmmamba.errors import InputError


@contextmanager
def blaming_the_image(path: str, results: dict) -> Iterator[None]:
    """Turns what OpenCV raises about an image, in whatever transform, into an :class:`UnreadableImageError`.

    Args:
        path: The image's, for the message.
        results: What the transforms are given, and change: once the image is loaded, it has ``ori_shape``.
    """
    try:
        yield
    except cv2.error as error:
        size = 'x'.join(str(side) for side in results.get('ori_shape', ())[::-1])
        function = getattr(error, 'func', None)
        reason = ('scaled, one of its sides has 0 pixels' if function == 'resize'
                  else f"OpenCV's {function} fails: {getattr(error, 'err', None) or error}")
        raise UnreadableImageError(f'image {path} ({size}) cannot be used: {reason}') from error


class LeftOut:
    """The samples that training had to leave out, as all data workers of this process find them.

    Args:
        size: Samples of the data set.
    """

    def __init__(self, size: int) -> None:
        self._found = torch.zeros(size, dtype=torch.uint8).share_memory_()

    def add(self, index: int, error: UnreadableImageError) -> None:
        """Notes a sample, and logs one warning about it.

        Raises:
            InputError: Most samples are left out by now.
        """
        if self._found[index]:
            return
        self._found[index] = 1
        count, size = int(self._found.sum()), len(self._found)
        if 2 * count > size:
            raise InputError(f'{count} of {size} images are unreadable; the last: {error}') from error
        print_log(f'{error}; left out ({count} of {size} so far)', logger='current', level=logging.WARNING)

    def indices(self) -> list[int]:
        """Returns the samples noted so far."""
        return self._found.nonzero()[:, 0].tolist()


class CheckedImages(BaseDataset):
    """A base of data sets whose images may be damaged, of another size than annotated, or too thin to be scaled.

    A ``LoadImageFromFile`` in the pipeline loads with the checks of ``LoadCheckedImage``. In training, an image that
    cannot be used is replaced by a random other one, with a warning; once most cannot, an :class:`InputError` ends the
    training. In testing, which needs every image, :class:`UnreadableImageError` names it.
    """

    left_out: LeftOut

    @property
    def pipeline(self) -> Compose:
        """Returns the transforms of a sample; hooks may set others while training goes on."""
        return self._pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Compose) -> None:
        pipeline.transforms = [_checked(step) for step in pipeline.transforms]
        self._pipeline = pipeline

    def full_init(self) -> None:
        """Loads the annotations, unless they are loaded."""
        if not self._fully_initialized:
            super().full_init()
            self.left_out = LeftOut(len(self))

    def prepare_data(self, idx: int) -> dict | None:
        """Returns the sample ``idx`` after the pipeline, or None for an image that training leaves out."""
        results = self.get_data_info(idx)
        try:
            with blaming_the_image(results['img_path'], results):
                return self.apply_pipeline(results)
        except UnreadableImageError as error:
            if self.test_mode:
                raise
            self.left_out.add(idx, error)
            return None

    def apply_pipeline(self, results: dict) -> dict | None:
        """Runs the transforms on a sample, and compares the image with its annotation as soon as it is loaded."""
        path, loaded = results['img_path'], False
        for transform in self.pipeline.transforms:
            results = transform(results)
            if results is None:
                return None
            if not loaded and 'ori_shape' in results:
                check_frame(results['ori_shape'], results, path, self.ann_file)
                loaded = True
        return results


def _checked(step: Any) -> Any:
    if type(step) is LoadImageFromFile:  # and not what inherits from it, which loads in its own way
        return LoadCheckedImage(step.to_float32, step.color_type, step.imdecode_backend, step.file_client_args,
                                backend_args=step.backend_args)
    return step


@DATASETS.register_module()
class CheckedVOCDataset(CheckedImages, VOCDataset):
    """mmdet's ``VOCDataset`` (same arguments) for images that may be unusable: :class:`CheckedImages`."""
