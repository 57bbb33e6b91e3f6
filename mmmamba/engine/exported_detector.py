"""An exported file instead of a detector, so that Runner tests it: ``tools/test.py CONFIG FILE.onnx``."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmcv.ops import batched_nms
from mmdet.models.detectors.base import BaseDetector
from mmdet.models.utils import filter_scores_and_topk
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from torch import Tensor

from mmmamba.deploy.export.runtime import SESSIONS, BoxFacts, RuntimeFileError, box_facts, open_file
from mmmamba.engine.runner import CheckedRunner
from mmmamba.errors import InputError
from mmmamba.model_config import without_file

SUFFIXES = tuple(SESSIONS)
"""Of files that :class:`ExportedDetector` runs."""


@MODELS.register_module()
class ExportedDetector(BaseDetector):
    """A file of ``tools/deployment/export.py`` as a detector that only predicts.

    Without NMS in the file, its boxes are chosen as the detector's own head does.

    Args:
        file: The file.
        test_cfg: ``score_thr``, ``nms_pre``, ``nms`` and ``max_per_img`` of mmdet's dense heads.
        pad_value: Of the padding of a batch, 0 to 255.

    Raises:
        InputError: The file cannot be read, or was not exported from a detector with boxes.
    """

    def __init__(self, file: str, test_cfg: dict, pad_value: int = 0) -> None:
        super().__init__(dict(type='DetDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=True,
                              pad_value=pad_value))
        self.session, facts = _open(file)
        if self.session.metadata['task'] == 'segment':
            raise InputError(f'{file} was exported from a detector with masks, which are not made of a file here')
        self.classes, self.has_nms = tuple(facts.classes.values()), facts.has_nms
        MMLogger.get_current_instance().info(f'{file}: scans in {self.session.library or "standard operators"}')
        self.test_cfg = Config(test_cfg)

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Returns the samples with ``pred_instances``, in pixels of the original images.

        Args:
            batch_inputs: (B, 3, H, W), RGB from 0 to 1.
            batch_data_samples: Samples with ``img_shape``, ``ori_shape`` and ``scale_factor``.
            rescale: False for pixels of the inputs.
        """
        results = []
        for image, sample in zip(batch_inputs, batch_data_samples):  # the file may be for one image at a time
            try:
                output = torch.from_numpy(self.session.run(image[None].cpu().numpy())[0][0])
            except RuntimeFileError as error:
                raise InputError(str(error)) from error
            found = self._rows(output) if self.has_nms else self._cells(output)
            results.append(self._finish(found, sample, rescale))
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _rows(self, rows: Tensor) -> InstanceData:
        rows = rows[rows[:, 4] > self.test_cfg.score_thr]
        return InstanceData(bboxes=rows[:, :4], scores=rows[:, 4], labels=rows[:, 5].long())

    def _cells(self, output: Tensor) -> InstanceData:
        centre, size, scores = output.split([2, 2, len(self.classes)])
        scores, labels, cells, _ = filter_scores_and_topk(scores.t(), self.test_cfg.score_thr, self.test_cfg.nms_pre)
        half = size[:, cells] / 2
        return InstanceData(bboxes=torch.cat([centre[:, cells] - half, centre[:, cells] + half]).t(), scores=scores,
                            labels=labels)

    def _finish(self, found: InstanceData, sample: DetDataSample, rescale: bool) -> InstanceData:
        boxes = HorizontalBoxes(found.bboxes)
        boxes.clip_(sample.img_shape)
        least = self.test_cfg.get('min_bbox_size', -1)
        if least >= 0:  # as mmdet's heads: what lies in the padding has no width or no height now
            within = (boxes.widths > least) & (boxes.heights > least)
            boxes, found = boxes[within], found[within]
        if rescale:
            boxes.rescale_([1 / factor for factor in sample.scale_factor])
        found.bboxes = boxes.tensor
        if not self.has_nms and len(found):
            rows, kept = batched_nms(found.bboxes, found.scores, found.labels, self.test_cfg.nms)
            found = found[kept]
            found.scores = rows[:, -1]
            found = found[:self.test_cfg.max_per_img]
        boxes = HorizontalBoxes(found.bboxes)
        boxes.clip_(sample.ori_shape if rescale else sample.img_shape)
        found.bboxes = boxes.tensor
        return found

    def loss(self, *_: object) -> dict:
        """Refuses: a file cannot be trained."""
        raise InputError('an exported file cannot be trained')

    def _forward(self, *_: object) -> tuple:
        raise InputError('an exported file has no raw outputs here; run its session')

    def extract_feat(self, batch_inputs: Tensor) -> tuple:
        """Refuses: a file has no maps."""
        raise InputError('an exported file has no maps')


def facts_of_file(file: str) -> BoxFacts:
    """Returns what an exported file says of its boxes and its input.

    Raises:
        InputError: The file cannot be read, or was not exported from a detector with boxes.
    """
    return _open(file)[1]


def _open(file: str) -> tuple[Any, BoxFacts]:
    try:
        session = open_file(file)
        return session, box_facts(file, session.metadata)
    except RuntimeFileError as error:
        raise InputError(str(error)) from error


def use_exported_file(cfg: Config, file: str) -> None:
    """Has a config test a file instead of its model, without the hooks that look into a model.

    Raises:
        InputError: Its model is not a detector with boxes of its own, or is to run in several processes.
    """
    if not {'score_thr', 'nms', 'max_per_img'} <= set(cfg.model.get('test_cfg') or {}):
        raise InputError(f'an exported file cannot be tested with this config: its {cfg.model.type} chooses its boxes '
                         'in several stages')
    if cfg.get('launcher', 'none') != 'none':
        raise InputError('an exported file is tested in one process, without --launcher')
    cfg.model = dict(type='ExportedDetector', file=file, test_cfg=cfg.model.test_cfg,
                     pad_value=cfg.model.get('data_preprocessor', {}).get('pad_value', 0))
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks', []) if hook['type'] == 'UnreadableImagesHook']


def metrics_of(cfg: Config, file: Path) -> dict[str, float]:
    """Returns an exported file's metrics on a config's test set; its log lies beside the file."""
    cfg = without_file(cfg)
    use_exported_file(cfg, str(file))
    cfg.work_dir, cfg.experiment_name, cfg.log_level = str(file.parent), file.stem, 'WARNING'
    cfg.load_from = None
    return CheckedRunner.from_cfg(cfg).test()
