"""The blocks of the papers for inference: norms, gates and residual sums within the passes of the convolutions.

Each class computes what its parent does, with the same parameters under the same names, in fewer passes over the
maps: on a CPU through native kernels (``pointwise_conv``, ``inverted_bottleneck``), elsewhere in PyTorch. Stochastic
depth is left out, and hooks on the layers inside a block are not called.
"""
from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from mmmamba.errors import InputError
from mmmamba.layers import SS2D, LayerNorm2d, LSBlock, Mlp, ODSSBlock, RGBlock, VSSBlock
from mmmamba.layers.common import ACTIVATIONS
from mmmamba.ops import inverted_bottleneck, pointwise_conv, ss2d_scan


def _name(activation: nn.Module) -> str:
    """What the fused operations call an activation; InputError for one that they do not have."""
    for name, kind in ACTIVATIONS.items():
        if type(activation) is kind and getattr(activation, 'approximate', 'none') == 'none':
            return name
    raise InputError(f'activation must be one of {sorted(ACTIVATIONS)}, without approximation, got {activation}')


def _norm_arguments(norm: LayerNorm2d | None, prefix: str = '') -> dict[str, Any]:
    if norm is None:
        return {}
    return {f'{prefix}norm_weight': norm.weight, f'{prefix}norm_bias': norm.bias, f'{prefix}eps': norm.eps}


class FusedSS2D(SS2D):
    """:class:`SS2D` of ``norm(x)``, plus ``residual``, each if it is given."""

    def forward(self, x: Tensor, norm: LayerNorm2d | None = None, residual: Tensor | None = None) -> Tensor:
        activation = _name(self.act)
        x_proj, *z_proj = self.in_proj.weight.split(self.conv2d.in_channels)
        u = inverted_bottleneck(
            x, x_proj, None, self.conv2d.weight, self.conv2d.bias, activation=activation, **_norm_arguments(norm))
        if u.dtype == torch.float16:
            u = u.float()  # as in SS2D
        y = ss2d_scan(
            u, self.x_proj_weight, self.dt_projs_weight, self.dt_projs_bias, self.A_logs, self.Ds,
            pattern=self.pattern, backend=self.scan_backend)
        gate = dict(gate=x, gate_weight=z_proj[0], gate_activation=activation,
                    **_norm_arguments(norm, 'gate_')) if self.gated else {}
        return pointwise_conv(y, self.out_proj.weight, residual=residual, **_norm_arguments(self.out_norm), **gate)


class FusedRGBlock(RGBlock):
    """:class:`RGBlock` of ``norm(x)``, plus ``residual``, each if it is given."""

    def forward(self, x: Tensor, norm: LayerNorm2d | None = None, residual: Tensor | None = None) -> Tensor:
        return inverted_bottleneck(
            x, self.fc1.weight, self.fc1.bias, self.dwconv.weight, self.dwconv.bias, skip=True,
            activation=_name(self.act), reduce_weight=self.fc2.weight, reduce_bias=self.fc2.bias, residual=residual,
            **_norm_arguments(norm))


class FusedMlp(Mlp):
    """:class:`Mlp` of ``norm(x)``, plus ``residual``, each if it is given."""

    def forward(self, x: Tensor, norm: LayerNorm2d | None = None, residual: Tensor | None = None) -> Tensor:
        hidden = pointwise_conv(
            x, self.fc1.weight, self.fc1.bias, activation=_name(self.act), **_norm_arguments(norm))
        return pointwise_conv(hidden, self.fc2.weight, self.fc2.bias, residual=residual)


class FusedLSBlock(LSBlock):
    """:class:`LSBlock`, whose activation and sum are within the passes of its 1x1 convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x))
        y = pointwise_conv(y, self.fc1.weight, self.fc1.bias, activation='gelu')
        return pointwise_conv(y, self.fc2.weight, self.fc2.bias, residual=x)


class FusedODSSBlock(ODSSBlock):
    """:class:`ODSSBlock`, whose layer norms and residual sums are within the passes of its branches."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_proj(x)
        if self.norm1 is not None:
            y, norm = self.local(x), self.norm1
            *others, last = self.ss2d
            for ss2d in others:
                y, norm = ss2d(y, norm), None
            x = last(y, norm, x)
        if isinstance(self.mlp, (FusedRGBlock, FusedMlp)):
            return self.mlp(x, self.norm2, x)
        return x if self.mlp is None else x + self.mlp(self.norm2(x))  # another row of table 3


class FusedVSSBlock(VSSBlock):
    """:class:`VSSBlock`, whose layer norms and residual sums are within the passes of its branches."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.ss2d(x, self.norm1, x)
        return self.mlp(x, self.norm2, x)


_FUSED: Mapping[type[nn.Module], type[nn.Module]] = MappingProxyType({
    SS2D: FusedSS2D,
    RGBlock: FusedRGBlock,
    Mlp: FusedMlp,
    LSBlock: FusedLSBlock,
    ODSSBlock: FusedODSSBlock,
    VSSBlock: FusedVSSBlock,
})
_PLAIN: Mapping[type[nn.Module], type[nn.Module]] = MappingProxyType({
    fused: plain for plain, fused in _FUSED.items()
})


def fuse_layers(model: nn.Module) -> None:
    """Changes the layers in ``model`` that have a class for inference into that class, in place."""
    _change_classes(model, _FUSED)


def unfuse_layers(model: nn.Module) -> None:
    """Changes the layers in ``model`` back, in place."""
    _change_classes(model, _PLAIN)


def _change_classes(model: nn.Module, classes: Mapping[type[nn.Module], type[nn.Module]]) -> None:
    for layer in model.modules():
        if type(layer) in classes:
            layer.__class__ = classes[type(layer)]  # the same parameters and submodules, another forward
