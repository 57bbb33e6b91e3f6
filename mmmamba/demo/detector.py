"""A trained detector for pictures in memory, in batches, with its detections as plain data."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import encode_mask_results
from mmdet.utils import get_test_pipeline_cfg
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from mmmamba.datasets.checked_images import blaming_the_image
from mmmamba.deploy.fused_layers import fuse_layers
from mmmamba.engine.checkpoint import load_checkpoint_checked


class Detector:
    """A model with the test pipeline of its config.

    Args:
        config: Any detector's config.
        checkpoint: Its weights; the class names stored beside them win over those of the config's data set.
        device: Where it runs.

    Raises:
        InputError: If the checkpoint is of another architecture.
    """

    def __init__(self, config: Config, checkpoint: Path, device: torch.device) -> None:
        init_default_scope(config.get('default_scope', 'mmdet'))
        model = MODELS.build(config.model)
        stored = load_checkpoint_checked(model, str(checkpoint)).get('dataset_meta')
        self.model = model.to(device).eval()
        fuse_layers(self.model)
        dataset = DATASETS.build({**config.test_dataloader.dataset, 'lazy_init': True})
        self.dataset_meta = {'palette': 'random', **dataset.metainfo, **(stored or {})}

        steps = get_test_pipeline_cfg(config).copy()
        steps[0] = {'type': 'mmdet.LoadImageFromNDArray'}
        self.pipeline = Compose([step for step in steps if step['type'] != 'LoadAnnotations'])

        self.visualizer = DetLocalVisualizer(line_width=2)
        self.visualizer.dataset_meta = self.dataset_meta

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

    @torch.no_grad()
    def detect(self, prepared: Sequence[dict]) -> list[DetDataSample]:
        """Runs the model on a batch of what :meth:`prepare` returned; boxes are in the image's pixels, and inside."""
        if not prepared:
            return []
        samples = [sample.cpu() for sample in self.model.test_step(pseudo_collate(prepared))]
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
        found = found[found.scores.argsort(descending=True)]
        classes = self.dataset_meta['classes']
        plain = {
            'bboxes': [[round(value, 2) for value in box] for box in found.bboxes.tolist()],
            'labels': found.labels.tolist(),
            'class_names': [classes[label] for label in found.labels.tolist()],
            'scores': [round(score, 4) for score in found.scores.tolist()],
        }
        if 'masks' in found:
            encoded = encode_mask_results(found.masks.numpy())
            plain['masks'] = [{**mask, 'counts': mask['counts'].decode()} for mask in encoded]
        return plain
