"""The blocks of the papers in fewer passes: norms, gates and residual sums together with what is around them.

Each class computes what its parent does, with the same parameters under the same names, in fewer passes over the
maps: on a CPU through native kernels (:mod:`mmmamba.deploy.fused_ops`), elsewhere in PyTorch. The layers
inside are then not called. So a layer stays as it is where somebody else would notice: where it, or a layer that its
passes would include, has hooks or a parametrisation, or is of another class than the papers'.
"""
from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from mmmamba.deploy.fused_ops import inverted_bottleneck, pointwise_conv
from mmmamba.layers import SS2D, DropPath, LayerNorm2d, LocalSS2D, LSBlock, Mlp, ODSSBlock, RGBlock, VSSBlock
from mmmamba.layers.common import ACTIVATIONS
from mmmamba.ops.cpu.blocks import BottleneckInputs, PointwiseInputs


def _name(activation: nn.Module) -> str:
    """Returns what the fused operations call an activation."""
    return next(name for name, kind in ACTIVATIONS.items() if type(activation) is kind)


def _norm_arguments(norm: LayerNorm2d | None, prefix: str = '') -> dict[str, Any]:
    if norm is None:
        return {}
    return {f'{prefix}norm_weight': norm.weight, f'{prefix}norm_bias': norm.bias, f'{prefix}eps': norm.eps}


class FusedSS2D(SS2D):
    """:class:`SS2D` of ``norm(x)``, plus ``residual``, each if it is given."""

    def forward(self, x: Tensor, norm: LayerNorm2d | None = None, residual: Tensor | None = None) -> Tensor:
        activation = _name(self.act)
        x_proj, *z_proj = self.in_proj.weight.split(self.conv2d.in_channels)
        u = inverted_bottleneck(BottleneckInputs(
            x, x_proj, None, self.conv2d.weight, self.conv2d.bias, activation=activation, **_norm_arguments(norm)))
        gate = dict(gate=x, gate_weight=z_proj[0], gate_activation=activation,
                    **_norm_arguments(norm, 'gate_')) if self.gated else {}
        return pointwise_conv(PointwiseInputs(
            self.scan(u), self.out_proj.weight, residual=residual, **_norm_arguments(self.out_norm), **gate))


class FusedLocalSS2D(FusedSS2D, LocalSS2D):
    """:class:`LocalSS2D` of ``norm(x)``, plus ``residual``, each if it is given."""


class FusedRGBlock(RGBlock):
    """:class:`RGBlock` of ``norm(x)``, plus ``residual``, each if it is given."""

    def forward(self, x: Tensor, norm: LayerNorm2d | None = None, residual: Tensor | None = None) -> Tensor:
        return inverted_bottleneck(BottleneckInputs(
            x, self.fc1.weight, self.fc1.bias, self.dwconv.weight, self.dwconv.bias, skip=True,
            activation=_name(self.act), reduce_weight=self.fc2.weight, reduce_bias=self.fc2.bias, residual=residual,
            **_norm_arguments(norm)))


class FusedMlp(Mlp):
    """:class:`Mlp` of ``norm(x)``, plus ``residual``, each if it is given."""

    def forward(self, x: Tensor, norm: LayerNorm2d | None = None, residual: Tensor | None = None) -> Tensor:
        hidden = pointwise_conv(PointwiseInputs(
            x, self.fc1.weight, self.fc1.bias, activation=_name(self.act), **_norm_arguments(norm)))
        return pointwise_conv(PointwiseInputs(hidden, self.fc2.weight, self.fc2.bias, residual=residual))


class FusedLSBlock(LSBlock):
    """:class:`LSBlock`, whose activation and sum are within the passes of its 1x1 convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x))
        y = pointwise_conv(PointwiseInputs(y, self.fc1.weight, self.fc1.bias, activation='gelu'))
        return pointwise_conv(PointwiseInputs(y, self.fc2.weight, self.fc2.bias, residual=x))


class FusedODSSBlock(ODSSBlock):
    """:class:`ODSSBlock`, whose layer norms and, but for stochastic depth, residual sums are within the passes."""

    def _residuals(self, x: Tensor, local: Tensor) -> Tensor:
        if self.norm1 is not None:
            y, norm = local, self.norm1
            *others, last = self.ss2d
            for ss2d in others:
                y, norm = _run(ss2d, norm, y), None
            x = _add(self.drop_path, last, norm, y, x)
        return x if self.norm2 is None else _add(self.drop_path, self.mlp, self.norm2, x, x)


class FusedVSSBlock(VSSBlock):
    """:class:`VSSBlock`, whose layer norms and, but for stochastic depth, residual sums are within the passes."""

    def _residuals(self, x: Tensor) -> Tensor:
        x = _add(self.drop_path, self.ss2d, self.norm1, x, x)
        return _add(self.drop_path, self.mlp, self.norm2, x, x)


def _add(drop_path: DropPath, branch: nn.Module, norm: LayerNorm2d | None, x: Tensor, residual: Tensor) -> Tensor:
    """Returns ``residual + drop_path(branch(norm(x)))``."""
    if drop_path.training and drop_path.drop_prob > 0:
        return residual + drop_path(_run(branch, norm, x))
    return _run(branch, norm, x, residual)


def _run(branch: nn.Module, norm: LayerNorm2d | None, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """Returns ``branch(norm(x)) + residual``, of each what is given."""
    if isinstance(branch, (FusedSS2D, FusedRGBlock, FusedMlp)):
        return branch(x, norm, residual)
    x = branch(x if norm is None else norm(x))
    return x if residual is None else residual + x


_FUSED: Mapping[type[nn.Module], type[nn.Module]] = MappingProxyType({
    SS2D: FusedSS2D,
    LocalSS2D: FusedLocalSS2D,
    RGBlock: FusedRGBlock,
    Mlp: FusedMlp,
    LSBlock: FusedLSBlock,
    ODSSBlock: FusedODSSBlock,
    VSSBlock: FusedVSSBlock,
})
_PLAIN: Mapping[type[nn.Module], type[nn.Module]] = MappingProxyType({
    fused: plain for plain, fused in _FUSED.items()
})
_BRANCHES = (SS2D, RGBlock, Mlp)  # they are called with other inputs and outputs, which hooks would see
_CONV, _ACTIVATION, _NORM = (nn.Conv2d, ), tuple(ACTIVATIONS.values()), (LayerNorm2d, type(None))
_SCAN: Mapping[str, tuple[type, ...]] = dict(
    in_proj=_CONV, conv2d=_CONV, act=_ACTIVATION, out_norm=_NORM, out_proj=_CONV)
_INCLUDED: Mapping[type[nn.Module], Mapping[str, tuple[type, ...]]] = MappingProxyType({
    SS2D: _SCAN,
    LocalSS2D: _SCAN,
    RGBlock: dict(fc1=_CONV, dwconv=_CONV, act=_ACTIVATION, fc2=_CONV),
    Mlp: dict(fc1=_CONV, act=_ACTIVATION, fc2=_CONV),
    LSBlock: dict(fc1=_CONV, fc2=_CONV),
    ODSSBlock: dict(norm1=_NORM, ss2d=(nn.Sequential, ), norm2=_NORM, drop_path=(DropPath, )),
    VSSBlock: dict(norm1=_NORM, norm2=_NORM, drop_path=(DropPath, )),
})
"""The layers that the passes of a fused one include, and the classes that they may have."""


def fuse_layers(model: nn.Module) -> None:
    """Changes the layers in ``model`` that have a class with fewer passes into that class, in place.

    Results are the same up to rounding; parameters and ``state_dict`` are as they were. Layers with hooks or a
    parametrisation, or with others in them than the papers', stay as they are.
    """
    for layer in list(model.modules()):
        if type(layer) in _FUSED and can_be_fused(layer):
            layer.__class__ = _FUSED[type(layer)]  # the same parameters and submodules, another forward


def unfuse_layers(model: nn.Module) -> None:
    """Changes the layers in ``model`` back, in place."""
    for layer in model.modules():
        if type(layer) in _PLAIN:
            layer.__class__ = _PLAIN[type(layer)]


def can_be_fused(layer: nn.Module) -> bool:
    """Tells whether a layer has the parts of the papers alone, and no hooks that another forward would miss."""
    if isinstance(layer, _BRANCHES) and _has_hooks(layer):
        return False
    included = [(getattr(layer, name), kinds) for name, kinds in _INCLUDED[type(layer)].items()]
    return all(type(part) in kinds and not _has_hooks(part) and getattr(part, 'approximate', 'none') == 'none'
               for part, kinds in included)


def _has_hooks(module: nn.Module | None) -> bool:
    return module is not None and bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
                                       or module._backward_pre_hooks)
