"""Class activation maps of detectors: where in the picture a layer responds (EigenCAM), or what scores depend on.

The package grad-cam has these methods, too, but cannot be imported without torchvision, and does not know the outputs
of mmdet's detectors; the methods are a few lines.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch import Tensor, nn

from mmmamba.analysis.inference import Detector
from mmmamba.engine.exported_detector import SUFFIXES
from mmmamba.errors import InputError, did_you_mean

_MAP_SHARE = 0.5  # of the colours of a drawn map


@dataclass(frozen=True)
class Activation:
    """What a layer returned for a picture, and how the scores change with it.

    Args:
        value: (C, H, W).
        gradient: Of the sum of the scores, (C, H, W); None where it was not asked for.
    """
    value: Tensor
    gradient: Tensor | None = None


def eigen_cam(activation: Activation) -> Tensor:
    """Projects the cells of a layer onto their first principal component (Muhammad and Yeasin, arXiv 2008.00299).

    As a component has no sign, the one is taken with which the cell that is farthest from the mean is positive.

    Args:
        activation: Of a layer.

    Returns:
        (H, W), not negative.
    """
    cells = activation.value.flatten(1).t()
    cells = cells - cells.mean(dim=0)
    projection = cells @ torch.linalg.svd(cells, full_matrices=False).Vh[0]
    farthest = projection[projection.abs().argmax()]
    return (projection * farthest.sign()).relu().reshape(activation.value.shape[1:])


def grad_cam(activation: Activation) -> Tensor:
    """Weights the channels of a layer with their mean gradients (Selvaraju et al., arXiv 1610.02391, equations 1, 2).

    Args:
        activation: Of a layer, with its gradient.

    Returns:
        (H, W), not negative.
    """
    weights = activation.gradient.mean(dim=(1, 2), keepdim=True)
    return (weights * activation.value).sum(dim=0).relu()


def hires_cam(activation: Activation) -> Tensor:
    """Weights every cell with its own gradients (Draelos and Carin, arXiv 2011.08891, equation 5).

    Where a picture has several objects, a mean gradient is none's, and Grad-CAM may colour what scores do not depend
    on.

    Args:
        activation: Of a layer, with its gradient.

    Returns:
        (H, W), not negative.
    """
    return (activation.gradient * activation.value).sum(dim=0).relu()


METHODS: Mapping[str, Callable[[Activation], Tensor]] = MappingProxyType(
    {'eigencam': eigen_cam, 'gradcam': grad_cam, 'hirescam': hires_cam})
"""Name → what makes a map of an activation."""


class CamDetector(Detector):
    """A trained detector whose layers can be looked at.

    Args:
        model: As of :class:`Detector`.
        weights: A checkpoint.
        device: As of :class:`Detector`.

    Raises:
        InputError: There is no such config, or the checkpoint is of another architecture or an exported file.
    """

    def __init__(self, model: str | Path | Config, weights: str | Path,
                 device: str | torch.device | None = None) -> None:
        if str(weights).endswith(SUFFIXES):
            raise InputError(f'{weights}: an exported file has no layers to look at; name its checkpoint')
        super().__init__(model, weights, device, fused=False)

    @property
    def default_layer(self) -> str:
        """Returns the name of the neck or, without one, of the backbone."""
        return 'neck' if self.model.with_neck else 'backbone'

    def layer(self, name: str) -> nn.Module:
        """Returns a module by its name.

        Raises:
            InputError: There is none; the line names those that are close.
        """
        modules = dict(self.model.named_modules())
        if name in modules and name:
            return modules[name]
        parts = ', '.join(child for child, _ in self.model.named_children())
        raise InputError(f'the detector has no layer {name!r}'
                         f'{did_you_mean(name, modules, otherwise=f"; it begins with one of {parts}")}')

    def activations(self, prepared: dict, layers: Sequence[str], score: float, label: int | None,
                    gradients: bool) -> tuple[dict[str, list[Activation]], DetDataSample]:
        """Runs the detector and keeps what layers return.

        Args:
            prepared: What :meth:`prepare` returned of a picture.
            layers: Names of modules; one that returns several maps, or runs several times, has several activations.
            score: Gradients are of the sum of the scores above this one; of the largest if there is none. They are
                those of the detections or, where mmdet cuts them off, of all cells of the head.
            label: The class that gradients are of; None for all.
            gradients: Whether to compute them.

        Returns:
            The activations of each layer, and the detections in pixels of the picture.

        Raises:
            InputError: A layer returns no map (N, C, H, W), or nothing is detected that gradients could be of.
        """
        batch = self.model.data_preprocessor(self.collate_fn([prepared]), False)
        inputs = batch['inputs'].requires_grad_(gradients)
        with torch.set_grad_enabled(gradients), self._kept(layers) as kept, self._cell_scores() as cells:
            sample, = self.model.predict(inputs, batch['data_samples'])
            for name, maps in kept.items():
                if not maps:
                    raise InputError(f'layer {name} returns no map (N, C, H, W)')
            outputs = [output for maps in kept.values() for output, _ in maps]
            slopes = iter(self._slopes(sample, cells, outputs, score, label) if gradients else [None] * len(outputs))
        return {name: [Activation(value[0], next(slopes)) for _, value in maps] for name, maps in kept.items()}, sample

    @contextmanager
    def _kept(self, layers: Sequence[str]) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:
        """Collects the maps that layers return: themselves, and copies that later operations in place do not change.
        """
        kept: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}

        def keep(name: str, output: Any) -> None:
            for part in output if isinstance(output, (list, tuple)) else [output]:
                if isinstance(part, Tensor) and part.ndim == 4:
                    kept[name].append((part, part.detach().float().clone()))

        handles = [self.layer(name).register_forward_hook(lambda _module, _inputs, output, name=name:
                                                          keep(name, output)) for name in layers]
        try:
            yield kept
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _cell_scores(self) -> Iterator[list[Tensor]]:
        """Collects the scores (cells, classes) of a dense head, level by level; of other heads none."""
        scores: list[Tensor] = []
        head = getattr(self.model, 'bbox_head', None)
        if not hasattr(head, 'cls_out_channels'):
            yield scores
            return

        def keep(_module: nn.Module, _inputs: tuple, output: Any) -> None:
            for logits in output[0]:
                if logits.ndim == 4:
                    rows = logits.permute(0, 2, 3, 1).reshape(-1, head.cls_out_channels)
                    sigmoid = getattr(head, 'use_sigmoid_cls', True)
                    scores.append(rows.sigmoid() if sigmoid else rows.softmax(dim=1)[:, :-1])

        handle = head.register_forward_hook(keep)
        try:
            yield scores
        finally:
            handle.remove()

    def _slopes(self, sample: DetDataSample, cells: Sequence[Tensor], outputs: Sequence[Tensor], score: float,
                label: int | None) -> list[Tensor]:
        found = sample.pred_instances
        if found.scores.requires_grad:
            scores = found.scores if label is None else found.scores[found.labels == label]
        elif cells:
            scores = torch.cat([rows if label is None else rows[:, label:label + 1] for rows in cells]).flatten()
        else:
            raise InputError(f'the scores of {type(self.model).__name__} have no gradient: try --method eigencam')
        if not len(scores):
            raise InputError('nothing is detected that a gradient could be of: try --method eigencam')
        chosen = scores[scores > score] if (scores > score).any() else scores.max()
        slopes = torch.autograd.grad(chosen.sum(), outputs, allow_unused=True)
        return [torch.zeros_like(output[0]) if slope is None else slope[0].float()
                for slope, output in zip(slopes, outputs)]


def blended(maps: Sequence[Tensor], sample: DetDataSample) -> np.ndarray:
    """Averages maps of any resolution, and lays them over the picture, without what was padded.

    Args:
        maps: (H, W) each, not negative; of the whole batch.
        sample: With ``ori_shape``, ``scale_factor`` and ``batch_input_shape``; padded to the right and below.

    Returns:
        As large as the picture, from 0 to 1; 0 everywhere where all maps are 0.
    """
    padded = tuple(sample.batch_input_shape)
    height, width = (min(most, max(1, round(side * factor)))
                     for most, side, factor in zip(padded, sample.ori_shape, sample.scale_factor[::-1]))
    total = torch.zeros(height, width)
    for heat in maps:
        large = nn.functional.interpolate(heat.detach().float().cpu()[None, None], padded, mode='bilinear')
        inside = large[0, 0, :height, :width]
        total += inside / inside.max().clamp(min=1e-12)
    total = nn.functional.interpolate(total[None, None], tuple(sample.ori_shape), mode='bilinear')[0, 0]
    return (total / total.max().clamp(min=1e-12)).numpy()


def draw_map(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lays a map over a picture.

    Args:
        picture: BGR (H, W, 3) uint8.
        heat: (H, W), from 0 to 1.

    Returns:
        BGR (H, W, 3) uint8.
    """
    colours = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_TURBO)
    return cv2.addWeighted(colours, _MAP_SHARE, picture, 1 - _MAP_SHARE, 0)
