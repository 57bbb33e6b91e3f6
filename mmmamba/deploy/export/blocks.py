"""The blocks of Mamba YOLO as runtimes should see them: equal results, with fewer operators around the convolutions.

Runtimes keep maps in blocks of 8 or 16 channels, or channels last, and fall back on slow copies where a map is split,
or where its channels are no multiple of a block. So a convolution whose output is split becomes two, channels are
filled up with zeros, a sum of a depthwise convolution and its input becomes one kernel, and the gate is applied to
pixels in the order in which the scan returns them.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmamba.deploy.fused_layers import can_be_fused
from mmmamba.layers import SS2D, LayerNorm2d, RGBlock

CHANNEL_BLOCK = 16
"""Channels of a runtime's block: 16 with AVX-512, 8 with AVX2."""


class ExportedRGBlock(nn.Module):
    """An :class:`RGBlock`; (B, C, H, W) to the same.

    Args:
        block: The block, which stays as it is.
    """

    def __init__(self, block: RGBlock) -> None:
        super().__init__()
        hidden = block.dwconv.in_channels
        extra = -hidden % CHANNEL_BLOCK
        self.act = block.act
        self.value, self.gate = (
            _conv(_widened(weight, extra), _widened(bias, extra))
            for weight, bias in zip(block.fc1.weight.chunk(2), _bias(block.fc1).chunk(2)))
        identity = torch.zeros_like(block.dwconv.weight)
        identity[:, :, 1, 1] = 1
        self.dwconv = _conv(_widened(block.dwconv.weight + identity, extra), _widened(_bias(block.dwconv), extra),
                            hidden + extra)
        self.fc2 = _conv(F.pad(block.fc2.weight, (0, 0, 0, 0, 0, extra)), block.fc2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.dwconv(self.value(x))) * self.gate(x))


class ExportedSS2D(SS2D):
    """An :class:`SS2D` with a gate; (B, C, H, W) to the same."""

    u_proj: nn.Conv2d
    z_proj: nn.Conv2d

    def forward(self, x: Tensor) -> Tensor:
        y = self.out_norm(self.scan(self.act(self.conv2d(self.u_proj(x)))))
        return self.out_proj(y * self.act(self.z_proj(x)))


class ExportedLayerNorm2d(LayerNorm2d):
    """A :class:`LayerNorm2d`, whose pixels are one dimension meanwhile: OpenVINO copies the map otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
        y = F.layer_norm(pixels, self.normalized_shape, self.weight, self.bias, self.eps)
        return y.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def rearrange_blocks(model: nn.Module) -> None:
    """Replaces blocks of a model, in place, by the forms above.

    Blocks with hooks, or with other layers in them than the papers', stay as they are.
    """
    for layer in list(model.modules()):
        for name, child in layer.named_children():
            if type(child) is RGBlock and can_be_fused(child):
                setattr(layer, name, ExportedRGBlock(child))
        if type(layer) is SS2D and layer.gated and can_be_fused(layer):
            layer.__class__ = ExportedSS2D
            halves = map(_conv, layer.in_proj.weight.chunk(2), _bias(layer.in_proj).chunk(2))
            layer.u_proj, layer.z_proj = halves
            del layer.in_proj
        if type(layer) is LayerNorm2d:
            layer.__class__ = ExportedLayerNorm2d


def _bias(conv: nn.Conv2d) -> Tensor:
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias


def _widened(parameter: Tensor, extra: int) -> Tensor:
    """Returns a parameter with rows of zeros at its end."""
    return torch.cat([parameter, parameter.new_zeros(extra, *parameter.shape[1:])])


def _conv(weight: Tensor, bias: Tensor, groups: int = 1) -> nn.Conv2d:
    """Makes a convolution that keeps the size of a map."""
    rows, columns, size, _ = weight.shape
    conv = nn.Conv2d(columns * groups, rows, size, padding=size // 2, groups=groups)
    conv.weight, conv.bias = (nn.Parameter(each.detach(), requires_grad=False) for each in (weight, bias))
    return conv
