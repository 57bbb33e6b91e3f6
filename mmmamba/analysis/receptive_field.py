"""Effective receptive fields: on which pixels a cell of a feature map depends, and how much (arXiv 1701.04128)."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmcv.transforms import Compose
from mmengine.dataset import pseudo_collate
from mmengine.model import ImgDataPreprocessor
from torch import Tensor, nn

from mmmamba.errors import InputError

SHARES = (0.2, 0.3, 0.5, 0.99)
"""Of the whole, for each of which the smallest square is sought (as in RepLKNet, arXiv 2203.06717)."""
FAINTEST = 1e-6
"""Of the strongest pixel; what is fainter is drawn as black."""
SIZE_DIVISOR = 32
"""Pixels; with other sizes, detectors pad the image."""

Features = Callable[[Tensor], Tensor]
"""From images (1, C, H, W) to a map (1, C', H', W')."""


@dataclass(frozen=True)
class ReceptiveField:
    """The field of one cell.

    Attributes:
        strength: (H, W), float64, not negative: how much the cell depends on each pixel.
        centre: Vertical and horizontal position of the cell's centre, in pixels; the first pixel is from 0 to 1.
            Convolutions of an even stride and an odd kernel look a little up and left of it, altogether by less than
            half a stride.
        stride: Pixels from a cell to the next.
    """

    strength: np.ndarray
    centre: tuple[float, float]
    stride: float

    def side(self, share: float) -> int:
        """Returns the side, in pixels, of the smallest square about the centre with ``share`` of the sum of strengths.

        It may reach beyond the image, where nothing is. With share 1 it holds all that has any influence.
        """
        (height, width), (middle_y, middle_x) = self.strength.shape, self.centre
        vertical, horizontal = np.abs(np.arange(height) + 0.5 - middle_y), np.abs(np.arange(width) + 0.5 - middle_x)
        # A square that just holds a pixel whose centre is that far off has this side.
        sides = np.ceil(2 * np.maximum(vertical[:, None], horizontal)).astype(int) + 1
        held = np.cumsum(np.bincount(sides.ravel(), self.strength.ravel()))
        return int(np.searchsorted(held, share * held[-1]))


def receptive_field(features: Features, images: Iterable[Tensor]) -> ReceptiveField:
    """Computes the field of the middle cell, (H' // 2, W' // 2), of a map.

    The strength of a pixel is the mean over images of ``Σ_c |∂ Σ_k relu(features(image)[k, middle]) / ∂ image[c,
    pixel]|``, with the sums over the channels of the map and of the image. The ReLU is RepLKNet's: without it, the sum
    over the channels of a LayerNorm, with which many backbones end, is the same for every image, and its gradient
    nothing but rounding. Instead of the absolute value RepLKNet has another ReLU.

    Args:
        features: What makes the map, in evaluation mode: with statistics of batches, cells would depend on all pixels.
        images: (1, C, H, W) each, of one size, normalised as ``features`` expects.

    Raises:
        InputError: There is no image, or the gradient is zero everywhere, as where no channel of the cell is positive,
            or not finite.
    """
    total, number = None, 0
    for image in images:
        image = image.detach().clone().requires_grad_(True)
        maps = features(image)
        rows, columns = maps.shape[-2:]
        gradient, = torch.autograd.grad(maps[0, :, rows // 2, columns // 2].relu().sum(), image)
        strength = gradient[0].abs().sum(dim=0).double().cpu().numpy()
        total = strength if total is None else total + strength
        number += 1
    if total is None:
        raise InputError('there is no image')
    if not np.isfinite(total).all() or not total.any():
        raise InputError('the gradient of the middle cell is zero or not finite')
    stride = total.shape[0] / rows
    return ReceptiveField(
        total / number, ((rows // 2 + 0.5) * stride, (columns // 2 + 0.5) * total.shape[1] / columns), stride)


def stage_features(detector: Any, stage: str) -> Features:
    """Returns what makes the map of a stage of a detector.

    Args:
        detector: Any of mmdet's.
        stage: ``'0'``, ``'1'``, … for the maps that its backbone returns, finest first, ``'-1'`` for the last; or the
            name of any module of backbone or neck whose output is a map, as ``'backbone.stages.0'``.

    Raises:
        InputError: There is no such map. Where it is a module whose output is none, when the features are computed.
    """
    try:
        index = int(stage)
    except ValueError:
        return _module_features(detector, stage)

    def of_backbone(image: Tensor) -> Tensor:
        maps = detector.backbone(image)
        if index not in range(-len(maps), len(maps)):
            raise InputError(f'the backbone returns {len(maps)} maps, there is no stage {index}')
        return maps[index]

    return of_backbone


def _module_features(detector: Any, name: str) -> Features:
    try:
        module = detector.get_submodule(name)
    except AttributeError as error:
        raise InputError(f'stage {name!r} is neither a number nor a module: {error}') from error

    def of_module(image: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        handle = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        try:
            detector.extract_feat(image)
        finally:
            handle.remove()
        if not outputs or not isinstance(outputs[-1], Tensor) or outputs[-1].ndim != 4:
            raise InputError(f'{name} makes no map (N, C, H, W) in backbone or neck')
        return outputs[-1]

    return of_module


def distinct_names(files: Sequence[str], short: Callable[[str], str]) -> dict[str, str]:
    """Returns file → its short name or, if two files have the same, as many last parts as tell all files apart."""
    parts = {file: Path(file).parts for file in files}
    different, names = len(set(parts.values())), {file: short(file) for file in files}
    if len(set(names.values())) == different:
        return names
    number = next(number for number in count(1) if len({part[-number:] for part in parts.values()}) == different)
    return {file: str(Path(*part[-number:])) for file, part in parts.items()}


def load_images(detector: nn.Module, paths: Sequence[Path], size: int) -> Iterator[Tensor]:
    """Yields images (1, 3, size, size), normalised as the detector's own data preprocessor does.

    Raises:
        InputError: It has none.
    """
    if not isinstance(detector.data_preprocessor, ImgDataPreprocessor):
        raise InputError('the model has no data_preprocessor that normalises images')
    pipeline = Compose([
        dict(type='LoadCheckedImage'),
        dict(type='mmdet.Resize', scale=(size, size), keep_ratio=False),
        dict(type='mmdet.PackDetInputs', meta_keys=('img_shape', 'ori_shape')),
    ])
    for path in paths:
        data = pseudo_collate([pipeline({'img_path': str(path)})])
        yield detector.data_preprocessor(data, False)['inputs']


def draw(fields: Sequence[tuple[str, ReceptiveField]], out: Path) -> None:
    """Draws fields side by side, each over its strongest pixel, on one logarithmic scale, with the squares of SHARES.

    Args:
        fields: Titles and fields.
        out: The PNG to write.
    """
    figure = Figure(figsize=(4.2 * len(fields) + 0.8, 4.6), layout='constrained')
    axes = figure.subplots(1, len(fields), squeeze=False)[0]
    norm, colours = LogNorm(FAINTEST, 1), colormaps['magma'].with_extremes(bad='black')
    for axis, (title, field) in zip(axes, fields):
        height, width = field.strength.shape
        relative = field.strength / field.strength.max()
        drawn = axis.imshow(relative, norm=norm, cmap=colours, extent=(0, width, height, 0))
        for share, colour in zip(SHARES, ('white', 'lime', 'cyan', 'dodgerblue')):
            side = field.side(share)
            corner = field.centre[1] - side / 2, field.centre[0] - side / 2
            label = f'{share:.0%}: {side} px'
            axis.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=colour, label=label))
        axis.set(xlim=(0, width), ylim=(height, 0))
        axis.set_title(title, fontsize=9)
        axis.legend(fontsize=7, loc='lower left', facecolor='black', labelcolor='white')
    figure.colorbar(drawn, ax=axes, shrink=0.85, label='mean |gradient| over its maximum')
    figure.savefig(out, dpi=110)
