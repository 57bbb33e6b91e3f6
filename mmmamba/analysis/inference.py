"""A trained detector on images, folders and videos: mmdet's ``DetInferencer``, which ends at the first bad image.

What is added to it: weights that do not all fit are refused, our layers are fused, boxes end inside the image, videos
are read and written, and what cannot be used is named while the others are done.
"""
from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.apis import DetInferencer
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.utils import get_test_pipeline_cfg
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from tqdm import tqdm

from mmmamba.analysis.media import Video, VideoFile, write_picture
from mmmamba.datasets.checked_images import blaming_the_image
from mmmamba.datasets.transforms.load_checked_image import LoadCheckedImage, UnreadableImageError
from mmmamba.deploy.fused_layers import fuse_layers
from mmmamba.engine.checkpoint import load_checkpoint_checked
from mmmamba.engine.exported_detector import SUFFIXES, ExportedDetector, use_exported_file
from mmmamba.errors import InputError
from mmmamba.files import write_json
from mmmamba.models.dense_heads import set_encode_masks

T = TypeVar('T')


class Detector(DetInferencer):
    """A model with the test pipeline of its config.

    Args:
        config: Any detector's config.
        checkpoint: Its weights, or an exported file; the class names stored with them win over those of the config's
            data set.
        device: Where it runs.

    Raises:
        InputError: If the checkpoint is of another architecture.
    """

    def __init__(self, config: Config, checkpoint: Path, device: torch.device) -> None:
        self._checkpoint = str(checkpoint)
        if self._checkpoint.endswith(SUFFIXES):
            config = copy.deepcopy(config)
            use_exported_file(config, self._checkpoint)
        super().__init__(config, device=str(device), scope=config.get('default_scope', 'mmdet'), show_progress=False)
        fuse_layers(self.model)
        set_encode_masks(self.model, True)  # of a large image, bitmaps would take gigabytes

    def _load_weights_to_model(self, model: Any, checkpoint: None, cfg: Config) -> None:
        if isinstance(model, ExportedDetector):
            stored = {'classes': model.classes}
        else:
            stored = load_checkpoint_checked(model, self._checkpoint).get('dataset_meta')
        dataset = DATASETS.build({**cfg.test_dataloader.dataset, 'lazy_init': True})
        model.dataset_meta = {'palette': 'random', **dataset.metainfo, **(stored or {})}

    def _init_pipeline(self, cfg: Config) -> Compose:
        pipeline = get_test_pipeline_cfg(cfg)  # wherever a wrapped data set has it
        pipeline[0]['type'] = 'LoadImageFromFile'  # whichever loader it is, mmdet's inferencer replaces this one
        cfg.test_dataloader.dataset.pipeline = pipeline
        return super()._init_pipeline(cfg)

    def _init_visualizer(self, cfg: Config) -> DetLocalVisualizer:
        visualizer = DetLocalVisualizer(line_width=2)
        visualizer.dataset_meta = self.model.dataset_meta
        return visualizer

    def prepare(self, image: np.ndarray, path: Path) -> dict:
        """Applies the test pipeline to a BGR (H, W, 3) uint8 image.

        Args:
            image: The image.
            path: Where it is from, for messages.

        Raises:
            UnreadableImageError: It has a shape that the pipeline cannot take.
        """
        results = {'img': image}
        with blaming_the_image(str(path), results):
            return self.pipeline(results)

    def detect(self, prepared: Sequence[dict]) -> list[DetDataSample]:
        """Runs the model on a batch of what :meth:`prepare` returned; boxes are in the image's pixels, and inside."""
        if not prepared:
            return []
        samples = [sample.cpu() for sample in self.forward(self.collate_fn(prepared))]
        for sample in samples:
            boxes = HorizontalBoxes(sample.pred_instances.bboxes)
            boxes.clip_(sample.ori_shape)  # some heads do not, others round afterwards
            sample.pred_instances.bboxes = boxes.tensor
        return samples

    def draw(self, image: np.ndarray, sample: DetDataSample, score_thr: float) -> np.ndarray:
        """Draws the boxes and masks above ``score_thr`` on a BGR image and returns a BGR image."""
        self.visualizer.add_datasample('image', image[..., ::-1], sample, draw_gt=False, pred_score_thr=score_thr)
        return self.visualizer.get_image()[..., ::-1]

    def describe(self, sample: DetDataSample, score_thr: float) -> dict[str, list]:
        """Returns the detections above ``score_thr``, best first.

        They are bboxes (x1, y1, x2, y2), labels, names, scores and, if the model finds masks, those of the whole image
        in COCO's compressed run-length encoding.
        """
        found = sample.pred_instances
        found = found[found.scores > score_thr]
        plain = self.pred2dict(DetDataSample(pred_instances=found[found.scores.argsort(descending=True)]))
        classes = self.model.dataset_meta['classes']
        return {
            **plain,
            'bboxes': [[round(value, 2) for value in box] for box in plain['bboxes']],
            'class_names': [classes[label] for label in plain['labels']],
            'scores': [round(score, 4) for score in plain['scores']],
        }


def detect_images(detector: Detector, paths: Sequence[Path], out_dir: Path, score_thr: float, batch_size: int) -> int:
    """Writes ``vis/NAME`` and ``preds/NAME.json`` of each image; one that cannot be used is left out with a warning.

    Args:
        detector: The detector.
        paths: Of the images.
        out_dir: The folder, with ``vis`` and ``preds`` in it.
        score_thr: Least score of a detection.
        batch_size: Images at a time.

    Returns:
        The number of images that are done.
    """
    load, done = LoadCheckedImage(), 0
    with tqdm(total=len(paths), unit='image') as bar:
        for batch in _batched(paths, batch_size):
            images, prepared = [], []
            for path in batch:
                try:
                    image = load({'img_path': str(path)})['img']
                    prepared.append(detector.prepare(image, path))
                    images.append((path, image))
                except UnreadableImageError as error:
                    warn(f'{error}; left out')
            for (path, image), sample in zip(images, detector.detect(prepared)):
                try:
                    write_json(out_dir / 'preds' / f'{path.name}.json',
                               {'file': path.name, **detector.describe(sample, score_thr)})
                    drawn = out_dir / 'vis' / path.name
                    _check_not_source(drawn, path)
                    write_picture(drawn, detector.draw(image, sample, score_thr))
                    done += 1
                except (InputError, OSError) as error:
                    warn(f'{path}: its results cannot be written: {error}')
            bar.update(len(batch))
    return done


def detect_video(detector: Detector, video: Video, out_dir: Path, score_thr: float, batch_size: int) -> int:
    """Writes ``vis/NAME.mp4`` and ``preds/NAME.json`` of a video; arguments as of :func:`detect_images`.

    Returns:
        The number of frames that are done.
    """
    frames: list[dict] = []
    drawn = out_dir / 'vis' / f'{video.path.stem}.mp4'
    _check_not_source(drawn, video.path)
    with VideoFile(drawn, like=video) as out, tqdm(total=video.frame_count or None, unit='frame') as bar:
        for batch in _batched(video, batch_size):
            prepared = [detector.prepare(image, video.path) for image in batch]
            for image, sample in zip(batch, detector.detect(prepared)):
                out.write(detector.draw(image, sample, score_thr))
                frames.append({'frame': len(frames), **detector.describe(sample, score_thr)})
            bar.update(len(batch))
    write_json(out_dir / 'preds' / f'{video.path.name}.json',
               {'file': video.path.name, 'fps': video.fps, 'frames': frames})
    if len(frames) < video.frame_count:
        warn(f'{video.path}: only {len(frames)} of the {video.frame_count} frames that it announces can be read')
    return len(frames)


def warn(message: object) -> None:
    """Prints a warning of one line above the progress bar."""
    tqdm.write(f'warning: {" ".join(str(message).split())}', file=sys.stderr)


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _check_not_source(out: Path, source: Path) -> None:
    if out.exists() and out.samefile(source):
        raise InputError(f'{out} is the input itself; choose another --out-dir')
