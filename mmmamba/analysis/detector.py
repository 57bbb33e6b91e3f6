"""The detector of a config file, and what it costs: parameters, FLOPs, latency, and where that was measured."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import Any

import mmcv
import mmdet
import torch
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmmamba.analysis.measure import ENVIRONMENT, Effort, ModelCost, Timing, count_run, environment, interleaved
from mmmamba.errors import InputError
from mmmamba.model_config import drop_pretrained
from mmmamba.settings import load_config

PROPOSALS = 1000
DETECTIONS = 100
"""Boxes that the box heads and the mask heads of two-stage detectors see, as published tables count them."""
DETECTOR_ENVIRONMENT = (*ENVIRONMENT, 'mmdet', 'mmcv')


def model_config(path: str) -> ConfigDict:
    """Reads the detector's config in a config file.

    Raises:
        InputError: The file has none, is of another kind, or cannot be read as a config.
    """
    try:
        config = load_config(path)
    except FileNotFoundError:
        raise
    except (OSError, NameError) as error:  # the first is what mmengine says to a file of another kind
        raise InputError(f'{path} is no config: {error}') from error
    init_default_scope(config.get('default_scope', 'mmdet'))
    return config.model


def build_detector(path: str) -> nn.Module:
    """Builds the detector of a config with random weights instead of trained ones; what it freezes stays frozen.

    Raises:
        InputError: As of :func:`model_config`.
    """
    model = model_config(path)
    drop_pretrained(model)
    detector = MODELS.build(model)
    with _quiet():
        detector.init_weights()
    return detector


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps mmengine from reporting every parameter's initialisation."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    try:
        yield
    finally:
        logger.setLevel(level)


def count_detector(detector: nn.Module, height: int, width: int) -> ModelCost:
    """Counts an mmdet detector on one image: backbone, neck and heads, without the post-processing.

    Args:
        detector: Of any kind. Those of the R-CNN family are counted with 1000 proposals and masks of 100, as in
            published tables. What depends on the image in others depends on it here too: the image is black.
        height: In pixels.
        width: In pixels.
    """
    device = next(detector.parameters()).device
    image = torch.zeros(1, 3, height, width, device=device)
    return count_run(detector, partial(forward_network, detector, image, [empty_sample(height, width)]))


@torch.no_grad()
def measure_latency(detector: nn.Module, height: int, width: int, runs: int) -> Timing:
    """Times the network on one random image: backbone, neck and heads, without decoding and NMS.

    Those of the R-CNN family run as :func:`count_detector` counts them: heads on 1000 boxes and 100 masks, without
    RoIAlign.

    Args:
        detector: Any of mmdet's, on the device (a CPU or CUDA) on which it is to run, in evaluation mode.
        height: In pixels.
        width: In pixels.
        runs: Timed ones.
    """
    device = next(detector.parameters()).device
    image, sample = torch.rand(1, 3, height, width, device=device), empty_sample(height, width)
    run = partial(forward_network, detector, image, [sample])
    return interleaved({'network': run}, device, Effort.rounds(runs))['network']


def detector_environment(device: str, threads: int) -> Mapping[str, str]:
    """Tells where a detector is measured, by the names in ``DETECTOR_ENVIRONMENT``: device, threads, versions.

    mmcv's says whether its operators are compiled (``full``) or, on GPUs too, in plain PyTorch (``lite``).

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Of PyTorch, on the CPU.
    """
    compiled = import_module('mmcv._ext').__spec__.loader is not None  # what replaces it has none
    operators = f'{mmcv.__version__} {"full" if compiled else "lite"}'
    return MappingProxyType({**environment(device, threads), 'mmdet': mmdet.__version__, 'mmcv': operators})


def empty_sample(height: int, width: int) -> DetDataSample:
    """Makes the sample of an image that was neither scaled nor padded, without objects; sizes in pixels."""
    shape = (height, width)
    return DetDataSample(metainfo=dict(
        img_shape=shape, ori_shape=shape, pad_shape=shape, batch_input_shape=shape, scale_factor=(1.0, 1.0), img_id=0))


def forward_network(detector: Any, images: Tensor, samples: Sequence[DetDataSample]) -> None:
    """Runs backbone, neck and heads once, without decoding, suppression and RoIAlign in detectors of the usual kinds.

    In other two-stage detectors all of it runs, on as many boxes as their weights make of the images.

    Args:
        detector: Any of mmdet's.
        images: (N, 3, H, W); N is 1 for two-stage detectors.
        samples: Of the images.
    """
    if _is_usual_two_stage(detector):
        _forward_two_stage(detector, images)
    else:
        detector(images, samples, mode='tensor')


def _is_usual_two_stage(model: nn.Module) -> bool:
    """Tells whether it is an RPN and box and mask heads on RoIs: Faster, Mask and Cascade (Mask) R-CNN."""
    if not isinstance(model, TwoStageDetector) or not model.with_rpn:
        return False
    return type(model.roi_head) in (StandardRoIHead, CascadeRoIHead) and not model.roi_head.with_shared_head


def _forward_two_stage(detector: Any, images: Tensor) -> None:
    """Runs backbone, neck and all heads once, each box head on 1000 boxes and each mask head on 100.

    The detector's own forward depends on how many proposals its weights make of the image, and a cascade's makes masks
    of them all. Here the heads see zeros instead of what RoIAlign cuts out.
    """
    detector.rpn_head(detector.extract_feat(images))
    roi_head = detector.roi_head
    _run_heads(roi_head.bbox_head, roi_head.bbox_roi_extractor, PROPOSALS, images)
    if roi_head.with_mask:
        _run_heads(roi_head.mask_head, roi_head.mask_roi_extractor, DETECTIONS, images)


def _run_heads(heads: Any, extractors: Any, boxes: int, images: Tensor) -> None:
    for head, extractor in zip(_members(heads), _members(extractors)):
        head(images.new_zeros(boxes, extractor.out_channels, *extractor.roi_layers[0].output_size))


def _members(module: nn.Module) -> list[Any]:
    """Returns the list that a cascade has of what other detectors have one of."""
    return list(module) if isinstance(module, nn.ModuleList) else [module]
