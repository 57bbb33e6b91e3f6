"""A COCO data set that says what is wrong with its files before training starts."""
from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS
from mmdet.visualization.palette import get_palette
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.logging import print_log

from mmmamba.datasets.checked_images import CheckedImages
from mmmamba.datasets.coco_checks import check_classes, check_images_exist, read_annotations
from mmmamba.datasets.coco_objects import check_objects
from mmmamba.datasets.formats.listing import name_order
from mmmamba.errors import InputError


@DATASETS.register_module()
class CheckedCocoDataset(CheckedImages, CocoDataset):
    """mmdet's ``CocoDataset`` (same arguments) for files that may be wrong.

    When the annotations are loaded, each of the following raises an :class:`InputError` of one line that names the
    file and the entry: a missing or malformed file, missing or duplicate entries, references to unknown images or
    categories, numbers that are none, file names that leave the image folder, images missing on the disk, classes that
    the file does not have in that order (mmdet would mislabel them), a file with nothing to learn or to detect, and,
    with ``test_mode``, all with which COCO's evaluation goes wrong. What training leaves out (boxes without area or
    outside the image, objects without a mask where masks are learnt) is counted in one warning. Images without
    objects are kept, as negatives, unless ``filter_cfg`` drops them.

    Images are loaded with checks, too, and one that cannot be used does not end the training: :class:`CheckedImages`.

    Args:
        by_name: Whether samples are in the order of their file names, and not in that of the file, so that sets that
            were converted from other formats are trained on alike.
        args: For mmdet's class.
        kwargs: For mmdet's class.
    """

    def __init__(self, *args: Any, by_name: bool = False, **kwargs: Any) -> None:
        self.by_name = by_name
        super().__init__(*args, **kwargs)

    @classmethod
    def _load_metainfo(cls, metainfo: dict | None = None) -> dict:
        """Returns classes, palette and the like; a palette of fewer colours than classes is replaced.

        COCO's own has 80, that of an inherited config as many as its classes, and mmdet draws with neither where there
        are more classes.
        """
        metainfo = super()._load_metainfo(metainfo)
        palette, classes = metainfo.get('palette'), metainfo['classes']
        if isinstance(palette, (list, tuple)) and len(palette) < len(classes):
            # Not NumPy's numbers: checkpoints keep the palette, and are read without running code of theirs.
            metainfo['palette'] = [tuple(map(int, colour)) for colour in get_palette('random', len(classes))]
        return metainfo

    def load_data_list(self) -> list[dict]:
        """Returns the samples in the order that is asked for."""
        samples = super().load_data_list()
        return sorted(samples, key=lambda sample: name_order(sample['img_path'])) if self.by_name else samples

    def COCOAPI(self, annotation_file: str) -> COCO:  # noqa: N802  (what CocoDataset calls to read its file)
        """Reads and checks the annotation file."""
        content = read_annotations(annotation_file, for_evaluation=self.test_mode)
        classes = self.metainfo['classes']
        check_classes(content, classes, annotation_file)
        if content['annotations'] or not self.test_mode:
            remark = check_objects(content, classes, annotation_file, self.test_mode, self._mask_forms())
        else:  # COCO's test-dev, for which detections are made without a truth
            remark = 'it has no annotations, so AP will be -1'
        if remark:
            print_log(f'{annotation_file}: {remark}', logger='current', level=logging.WARNING)

        folder = self.data_prefix.get('img', '')
        if isinstance(get_file_backend(folder, backend_args=self.backend_args), LocalBackend):
            check_images_exist(content['images'], folder, annotation_file)

        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs
        return coco

    def filter_data(self) -> list[dict]:
        """Drops images as ``filter_cfg`` says, in training; refuses to drop all that there is to learn."""
        kept = super().filter_data()
        learnt = (not instance['ignore_flag'] for info in kept for instance in info['instances'])
        if not self.test_mode and not any(learnt):
            raise InputError(f'{self.ann_file}: filter_cfg={self.filter_cfg} leaves nothing to learn')
        return kept

    def _mask_forms(self) -> set[type]:
        """Returns the forms of segmentations that the pipeline reads, and with ``test_mode`` COCO's evaluation."""
        polygons_only = [not step.poly2mask for step in _flatten(self.pipeline) if getattr(step, 'with_mask', False)]
        if not polygons_only:
            return set()
        return {list} if any(polygons_only) and not self.test_mode else {list, dict}


def _flatten(step: Any) -> Iterator[Any]:
    """Yields a step of a pipeline, and those that it runs."""
    yield step
    for inner in getattr(step, 'transforms', ()):
        yield from _flatten(inner)
