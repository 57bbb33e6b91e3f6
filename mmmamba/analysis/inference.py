"""A trained detector in Python: mmdet's ``DetInferencer``, with our configs by name.

What is added to it: weights that do not all fit are refused, our layers are fused, boxes end inside the image, and
what it draws can be read on pictures of any size.
"""
from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.apis import DetInferencer
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData

from mmmamba.analysis.visualizer import PictureVisualizer, draw_instances
from mmmamba.datasets.checked_images import blaming_the_image
from mmmamba.deploy.fused_layers import fuse_layers
from mmmamba.engine.checkpoint import load_checkpoint_checked
from mmmamba.engine.exported_detector import SUFFIXES, ExportedDetector, facts_of_file, use_exported_file
from mmmamba.errors import InputError
from mmmamba.model_config import parts
from mmmamba.models.dense_heads import set_encode_masks
from mmmamba.settings import config_next_to, load_config, with_image_size


class Detector(DetInferencer):
    """A model with the test pipeline of its config; calling it is described at mmdet's ``DetInferencer``.

    Args:
        model: Any detector's config: its file, the name of one of ours such as ``mamba-yolo_t``, or itself. None for
            the config that training left next to the checkpoint, and for what an exported file says of itself.
        weights: A checkpoint, or an exported file; the class names stored with them win over those of the config's
            data set.
        device: Where it runs; None for CUDA if there is one, else the CPU.
        fused: Whether layers are fused, which is faster; the model's own are needed for gradients and hooks.

    Raises:
        InputError: There are no weights or no such config, or the checkpoint is of another architecture.
    """

    def __init__(self, model: str | Path | Config | None = None, weights: str | Path | None = None,
                 device: str | torch.device | None = None, fused: bool = True) -> None:
        if weights is None:
            raise InputError('a Detector needs weights: a checkpoint, or an exported file')
        self._checkpoint = str(weights)
        exported = self._checkpoint.endswith(SUFFIXES)
        if isinstance(model, Config):
            config = copy.deepcopy(model)
        elif model is None:
            config = _config_of_file(self._checkpoint) if exported else load_config(config_next_to(self._checkpoint))
        else:
            config = load_config(model)
        if exported:
            use_exported_file(config, self._checkpoint)
        device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        super().__init__(config, device=str(device), scope=config.get('default_scope', 'mmdet'), show_progress=False)
        if fused:
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

    def _init_collate(self, cfg: Config) -> Callable:
        # mmengine looks for its own function in mmdet's scope, and logs that it is not there.
        return super()._init_collate(cfg) if 'collate_fn' in cfg.test_dataloader else pseudo_collate

    def _init_visualizer(self, cfg: Config) -> PictureVisualizer:
        visualizer = PictureVisualizer()
        visualizer.dataset_meta = self.model.dataset_meta
        return visualizer

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the names of the classes."""
        return tuple(self.model.dataset_meta['classes'])

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
        return self.forward(self.collate_fn(prepared)) if prepared else []

    def forward(self, inputs: dict | tuple) -> list[DetDataSample]:
        """Runs the model on a collated batch, and returns samples on the CPU."""
        samples = [sample.cpu() for sample in super().forward(inputs)]
        for sample in samples:
            boxes = HorizontalBoxes(sample.pred_instances.bboxes)
            boxes.clip_(sample.ori_shape)  # some heads do not, others round afterwards
            sample.pred_instances.bboxes = boxes.tensor
        return samples

    def choose(self, sample: DetDataSample, score_thr: float, labels: Collection[int] | None = None) -> InstanceData:
        """Returns the detections above ``score_thr`` of some classes (None: of all), best first."""
        found = sample.pred_instances
        chosen = found.scores > score_thr
        if labels is not None:
            chosen &= torch.isin(found.labels, torch.tensor([*labels], dtype=torch.long))
        found = found[chosen]
        return found[found.scores.argsort(descending=True)]

    def draw(self, image: np.ndarray, found: InstanceData) -> np.ndarray:
        """Draws boxes, masks, labels and numbers of tracks on a BGR image and returns a BGR image."""
        meta = self.model.dataset_meta
        return draw_instances(image[..., ::-1], found, meta['classes'], meta['palette'])[..., ::-1]

    def describe(self, found: InstanceData) -> dict[str, list]:
        """Returns detections as plain values, for json.

        They are bboxes (x1, y1, x2, y2), labels, names, scores; if the model finds masks, those of the whole image in
        COCO's compressed run-length encoding; and, of tracked objects, ids.
        """
        plain = self.pred2dict(DetDataSample(pred_instances=found))
        return {
            **plain,
            'bboxes': [[round(value, 2) for value in box] for box in plain['bboxes']],
            'class_names': [self.classes[label] for label in plain['labels']],
            'scores': [round(score, 4) for score in plain['scores']],
            **({'track_ids': found.track_ids.tolist()} if 'track_ids' in found else {}),
        }


def _config_of_file(file: str) -> Config:
    """Returns a config for an exported file: its size and padding, and the thresholds of all our YOLO detectors."""
    facts = facts_of_file(file)
    height, width = facts.size
    config = with_image_size(load_config('mamba-yolo_t'), width, height)
    for step in parts(get_test_pipeline_cfg(config)):
        if step.get('type') == 'LetterboxPad':
            step.pad_val = dict(img=(facts.pad_value,) * 3)
    return config
