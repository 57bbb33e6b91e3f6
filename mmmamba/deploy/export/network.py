"""What is exported of a detector: a plain module from images to boxes and scores, or to the maps of its neck."""
from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmmamba.deploy.export.blocks import rearrange_blocks
from mmmamba.deploy.fuse import fold_batch_norms
from mmmamba.errors import InputError

MAP_TOLERANCE = 1e-4
"""Largest difference of a map from PyTorch's, relative to its norm."""
KEPT_BY_HALF = ('A_log', 'A_logs', 'dt_projs_bias')
"""Parameters of the scans that stay float32: exponentials are taken of them, and they are small."""


def exported_network(detector: Any) -> ExportedNetwork:
    """Returns a copy of a detector for exporters: batch norms folded, every scan on the backend ``'export'``.

    Args:
        detector: mmdet's: one with a :class:`YOLOv8Head`, or any with a backbone, of which backbone and neck are
            exported.

    Raises:
        InputError: It has no backbone, or a batch norm without running statistics, or the copy would differ from it.
    """
    if not hasattr(detector, 'backbone'):
        raise InputError(f'{type(detector).__name__} has no backbone that could be exported')
    original = detector
    detector = copy.deepcopy(detector).eval().requires_grad_(False)
    fold_batch_norms(detector)
    rearrange_blocks(detector)
    makes_boxes = hasattr(getattr(detector, 'bbox_head', None), 'distances')
    network = BoxNetwork(detector) if makes_boxes else FeatureNetwork(detector)
    _require_same(network, original)
    layer: Any
    for layer in network.modules():
        if hasattr(layer, 'scan_backend'):
            layer.scan_backend = 'export'
    return network


@torch.no_grad()
def _require_same(network: ExportedNetwork, detector: Any) -> None:
    """Compares the maps, or what the head makes of them, with the detector's own of a picture of noise."""
    training = detector.training
    unit = max(64, network.stride, getattr(detector.data_preprocessor, 'pad_size_divisor', 1))
    picture = torch.randint(0, 256, (3, unit, 2 * unit), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    detector.eval()
    try:
        maps = detector.extract_feat(detector.data_preprocessor({'inputs': [picture]})['inputs'])
        expected = flattened(detector.bbox_head(maps) if isinstance(network, BoxNetwork) else maps)
    finally:
        detector.train(training)
    maps = network.features(picture.flip(0)[None].to(expected[0].device) / 255)  # pictures are BGR
    got = flattened(network.head(maps) if isinstance(network, BoxNetwork) else maps)
    differences = [float((mine - its).norm() / its.norm().clamp(min=1e-30)) for mine, its in zip(got, expected)]
    if not all(difference <= MAP_TOLERANCE for difference in differences):  # so that NaN fails
        raise InputError(f'{type(detector).__name__} cannot be exported: its form for other runtimes differs from it '
                         f'by {max(differences):.1e} of an output')


def flattened(outputs: Any) -> list[Tensor]:
    """Returns the tensors of nested tuples and lists."""
    if isinstance(outputs, Tensor):
        return [outputs]
    return [tensor for part in outputs for tensor in flattened(part)]


def rounded_to_half(network: ExportedNetwork) -> ExportedNetwork:
    """Returns a copy whose weights are float16 values in float32; vectors, as biases and norms, stay as they are.

    Raises:
        InputError: A weight is too large for float16.
    """
    network = copy.deepcopy(network)
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1 and name.rpartition('.')[2] not in KEPT_BY_HALF:
            parameter.data = parameter.half().float()
            if not parameter.isfinite().all():
                raise InputError(f'--half: {name} has values that float16 cannot hold')
    return network


class ExportedNetwork(nn.Module):
    """Images (B, 3, H, W), RGB from 0 to 1, through the detector's normalisation, backbone and neck.

    Attributes:
        stride: Height and width must be multiples of it.
        output_names: Of the outputs, in their order.
    """

    stride = 32
    output_names: tuple[str, ...]
    backbone: Any
    neck: Any
    scale: Tensor
    shift: Tensor

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone, self.neck = detector.backbone, getattr(detector, 'neck', None)
        preprocessor = detector.data_preprocessor
        # Where pictures, which are BGR, are not converted, the network takes BGR.
        self.flip_channels = not getattr(preprocessor, '_channel_conversion', False)
        normalised = getattr(preprocessor, '_enable_normalize', False)
        mean, std = (preprocessor.mean, preprocessor.std) if normalised else (torch.zeros(3), torch.ones(3))
        self.register_buffer('scale', 255 / std.detach().view(1, 3, 1, 1).cpu())
        self.register_buffer('shift', -(mean / std).detach().view(1, 3, 1, 1).cpu())
        self.normalises = not (torch.all(self.scale == 1) and torch.all(self.shift == 0))

    def features(self, images: Tensor) -> Sequence[Tensor]:
        """Returns the maps of the neck, or of a backbone without one."""
        x = images.flip(1) if self.flip_channels else images
        maps = self.backbone(x * self.scale + self.shift if self.normalises else x)
        return maps if self.neck is None else self.neck(maps)


class FeatureNetwork(ExportedNetwork):
    """The maps of backbone and neck, one output each."""

    def __init__(self, detector: Any) -> None:
        super().__init__(detector)
        with torch.no_grad():
            device = next(self.parameters()).device
            count = len(self.features(torch.zeros(1, 3, 64, 64, device=device)))
        self.output_names = tuple(f'map{i}' for i in range(count))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns (B, C_i, H_i, W_i) of every level."""
        return tuple(self.features(images))


class BoxNetwork(ExportedNetwork):
    """The boxes and scores of every cell, as Ultralytics' exports have them; of a head with masks also what they need.

    Attributes:
        num_classes: Classes.
        has_masks: Whether the head makes masks.
    """

    head: Any

    def __init__(self, detector: Any) -> None:
        super().__init__(detector)
        self.head = detector.bbox_head
        self.stride = max(self.head.strides)
        self.num_classes: int = self.head.num_classes
        self.has_masks = hasattr(self.head, 'prototypes')
        self.output_names = ('output0', 'output1') if self.has_masks else ('output0',)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns (B, 4 + classes, cells): centre x, centre y, width and height in pixels, and scores.

        With masks, their coefficients follow the scores, and the prototypes (B, K, H / 4, W / 4) are a second output.
        """
        cls_scores, bbox_preds, *of_masks = self.head(self.features(images))
        boxes = [self._boxes(logits, stride) for logits, stride in zip(bbox_preds, self.head.strides)]
        scores = [scores.flatten(2).sigmoid() for scores in cls_scores]
        coefficients = [[maps.flatten(2) for maps in of_masks[0]]] if self.has_masks else []
        output = torch.cat([torch.cat(parts, dim=2) for parts in (boxes, scores, *coefficients)], dim=1)
        return (output, of_masks[1]) if self.has_masks else (output,)

    def _boxes(self, logits: Tensor, stride: int) -> Tensor:
        """Returns boxes (B, 4, H·W) of a level's box logits (B, 4·reg_max, H, W)."""
        height, width = logits.shape[2:]
        left, top, right, bottom = self.head.distances(logits.permute(0, 2, 3, 1)).unbind(-1)  # (B, H, W)
        rows, columns = (torch.arange(size, dtype=logits.dtype, device=logits.device) + 0.5
                         for size in (height, width))
        x, y = columns + (right - left) / 2, rows[:, None] + (bottom - top) / 2
        return torch.stack([x, y, left + right, top + bottom], dim=1).flatten(2) * stride
