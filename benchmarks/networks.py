"""Mamba YOLO and YOLOv8 from the layers alone, without OpenMMLab: what a machine with PyTorch only can measure.

They are the registered models of this package: same parameters in the same order, same outputs (a test compares them).
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmamba.layers import SPPF, C2f, ConvNormAct, ODSSBlock, SimpleStem, VisionClueMerge

REG_MAX = 16
MakeBlock = Callable[[int, int], nn.Module]


class Arch(NamedTuple):
    """A size: blocks and channels of the four stages, and the units in each block of the neck."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    neck: int


MAMBA_YOLO = MappingProxyType({
    't': Arch((1, 2, 2, 1), (32, 64, 128, 256), 1),
    'b': Arch((1, 2, 2, 1), (64, 128, 256, 512), 1),
    'l': Arch((2, 4, 4, 2), (96, 192, 384, 576), 2),
})
"""The paper's models, by the names of their configs."""

YOLOV8 = MappingProxyType({
    'n': Arch((1, 2, 2, 1), (32, 64, 128, 256), 1),
    's': Arch((1, 2, 2, 1), (64, 128, 256, 512), 1),
    'm': Arch((2, 4, 4, 2), (96, 192, 384, 576), 2),
})

NETWORKS = (*(f'yolov8_{size}' for size in YOLOV8), *(f'mamba-yolo_{size}' for size in MAMBA_YOLO))


class Backbone(nn.Module):
    """A stem and four times a down-sampling and a stage, then SPPF; returns C3, C4 and C5."""

    def __init__(self, stem: nn.Module, downsamples: Sequence[nn.Module], stages: Sequence[nn.Module],
                 channels: int) -> None:
        super().__init__()
        self.stem = stem
        self.downsamples = nn.ModuleList(downsamples)
        self.stages = nn.ModuleList(stages)
        self.sppf = SPPF(channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        maps = []
        for downsample, stage in zip(self.downsamples, self.stages):
            x = stage(downsample(x))
            maps.append(x)
        return [*maps[1:3], self.sppf(x)]


class Neck(nn.Module):
    """The path aggregation of the YOLO family over three levels."""

    def __init__(self, widths: Sequence[int], make_block: MakeBlock) -> None:
        super().__init__()
        c3, c4, c5 = widths
        self.top_down_blocks = nn.ModuleList([make_block(c5 + c4, c4), make_block(c4 + c3, c3)])
        self.downsamples = nn.ModuleList(ConvNormAct(width, width, 3, 2) for width in (c3, c4))
        self.bottom_up_blocks = nn.ModuleList([make_block(c3 + c4, c4), make_block(c4 + c5, c5)])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        inner = [maps[-1]]
        for x, block in zip(maps[-2::-1], self.top_down_blocks):
            above = F.interpolate(inner[0], size=x.shape[-2:], mode='nearest')
            inner.insert(0, block(torch.cat([above, x], dim=1)))
        outs = inner[:1]
        for x, downsample, block in zip(inner[1:], self.downsamples, self.bottom_up_blocks):
            outs.append(block(torch.cat([downsample(outs[-1]), x], dim=1)))
        return outs


class Head(nn.Module):
    """The convolutions of YOLOv8's head; returns the class logits and the box logits of each level."""

    def __init__(self, widths: Sequence[int], classes: int = 80) -> None:
        super().__init__()
        box_channels = max(16, widths[0] // 4, 4 * REG_MAX)
        class_channels = max(widths[0], min(classes, 100))
        self.project = nn.Parameter(torch.arange(REG_MAX, dtype=torch.float), requires_grad=False)
        self.reg_branches = nn.ModuleList(self._branch(width, box_channels, 4 * REG_MAX) for width in widths)
        self.cls_branches = nn.ModuleList(self._branch(width, class_channels, classes) for width in widths)

    @staticmethod
    def _branch(width: int, channels: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            ConvNormAct(width, channels, 3), ConvNormAct(channels, channels, 3), nn.Conv2d(channels, outputs, 1))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [branch(x) for branches in (self.cls_branches, self.reg_branches) for x, branch in zip(maps, branches)]


def build_network(name: str) -> nn.Sequential:
    """Builds the backbone, neck and head called ``name``, one of ``NETWORKS``, for 80 classes, with random weights.

    Raises:
        ValueError: There is no network of that name.
    """
    if name not in NETWORKS:
        raise ValueError(f'network must be one of {", ".join(NETWORKS)}, got {name!r}')
    family, size = name.split('_')
    arch = MAMBA_YOLO[size] if family == 'mamba-yolo' else YOLOV8[size]
    backbone, make_block = _mamba_yolo(arch) if family == 'mamba-yolo' else _yolov8(arch)
    return nn.Sequential(backbone, Neck(arch.widths[1:], make_block), Head(arch.widths[1:]))


def _mamba_yolo(arch: Arch) -> tuple[Backbone, MakeBlock]:
    merges = [VisionClueMerge(*pair) for pair in zip(arch.widths, arch.widths[1:])]
    stages = [nn.Sequential(*(ODSSBlock(width, width) for _ in range(depth)))
              for depth, width in zip(arch.depths, arch.widths)]
    backbone = Backbone(SimpleStem(3, arch.widths[0]), [nn.Identity(), *merges], stages, arch.widths[-1])
    return backbone, partial(ODSSBlock, num_ss2d=arch.neck, proj_bias=False)


def _yolov8(arch: Arch) -> tuple[Backbone, MakeBlock]:
    inputs = (arch.widths[0] // 2, *arch.widths)
    convs = [ConvNormAct(*pair, 3, 2) for pair in zip(inputs, arch.widths)]
    stages = [C2f(width, width, depth, shortcut=True) for depth, width in zip(arch.depths, arch.widths)]
    return Backbone(ConvNormAct(3, inputs[0], 3, 2), convs, stages, arch.widths[-1]), partial(
        C2f, num_blocks=arch.neck)
