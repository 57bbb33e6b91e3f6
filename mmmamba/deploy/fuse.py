"""Batch norms folded into convolutions, for inference, and blocks computed in fewer passes, also for training."""
from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import nn

from mmmamba.deploy.fused_layers import fuse_layers
from mmmamba.errors import InputError
from mmmamba.layers import ConvNormAct, LSBlock

Model = TypeVar('Model', bound=nn.Module)

CONV_NORM_PAIRS: Mapping[type[nn.Module], tuple[str, str]] = MappingProxyType({
    ConvNormAct: ('conv', 'norm'),
    LSBlock: ('dwconv', 'norm'),
})
"""The layers that have a norm directly after a convolution, and what they call the two."""


def fuse(model: Model) -> Model:
    """Returns a copy of ``model`` for inference: batch norms folded, blocks fused, in evaluation mode, channels_last.

    In evaluation a batch norm is an affine map of each channel, so a convolution before it can do its work::

        γ (W ∗ x + b - μ) / √(σ² + ε) + β  =  (s W) ∗ x + (s (b - μ) + β)      with s = γ / √(σ² + ε)

    The blocks around the scans become those of :mod:`mmmamba.deploy.fused_layers`. Both hold for the layers of this
    package, wherever in ``model`` they are; other norms (group norm, layer norm) and layers of others stay as they
    are. The copy has another ``state_dict``: load the weights before. It has no batch statistics left, so ``train()``
    does not change what its convolutions compute. Fusing twice is harmless.

    Args:
        model: Any module: a backbone, a neck, a whole mmdet detector. It is not changed.

    Returns:
        The copy, on the same device and of the same dtype.

    Raises:
        InputError: A batch norm keeps no running statistics.
    """
    model = copy.deepcopy(model)
    fold_batch_norms(model)
    fuse_layers(model)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # in torch's documentation only
    return model.eval()


def fuse_for_training(model: Model) -> Model:
    """Changes the blocks around the scans in ``model`` into those of :mod:`mmmamba.deploy.fused_layers`, in place.

    On a CPU a training step is faster for it. Parameters, ``state_dict`` and, up to rounding, results are the same.
    The layers inside of such a block are not called, and hooks that are put on them later are not either.

    Args:
        model: Any module: a backbone, a neck, a whole mmdet detector.

    Returns:
        ``model``.
    """
    fuse_layers(model)
    return model


def fold_batch_norms(model: nn.Module) -> None:
    """Folds the batch norms of our layers in ``model`` into the convolutions before them, in place: see :func:`fuse`.

    Raises:
        InputError: A batch norm keeps no running statistics.
    """
    for name, layer in model.named_modules():
        for kind, (conv_name, norm_name) in CONV_NORM_PAIRS.items():
            if isinstance(layer, kind) and isinstance(getattr(layer, norm_name), (nn.BatchNorm2d, nn.SyncBatchNorm)):
                _fold(getattr(layer, conv_name), getattr(layer, norm_name), name)
                setattr(layer, norm_name, nn.Identity())


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d | nn.SyncBatchNorm, name: str) -> None:
    """Has ``conv`` compute what ``norm`` makes of its output; ``name`` of the layer they are in, for the error."""
    if norm.running_mean is None or norm.running_var is None:
        raise InputError(f'{name or "The model"}: a batch norm without running statistics cannot be folded, since it '
                         'takes those of each batch')
    # In float64, so that the sum is rounded once only.
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    bias = -norm.running_mean.double() if conv.bias is None else conv.bias.double() - norm.running_mean.double()
    bias = bias * scale
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    weight = conv.weight
    conv.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=weight.requires_grad)
    weight.copy_(weight.double() * scale[:, None, None, None])
