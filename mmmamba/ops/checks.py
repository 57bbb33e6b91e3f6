"""Checks of what a fused convolution is given. They run before every kernel, so they format no message in vain."""
from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from mmmamba.ops.activation import ACTIVATIONS


def require_map(op: str, x: Tensor) -> None:
    """Raises ValueError unless ``x`` is a batch of maps."""
    if x.dim() != 4:
        raise ValueError(f'{op}: x must be (batch, channels, height, width), not {tuple(x.shape)}.')


def require_activation(op: str, name: str | None) -> None:
    """Raises ValueError unless there is an activation of this name."""
    if name not in ACTIVATIONS:
        raise ValueError(f'{op} has no activation named {name!r}; it has {", ".join(filter(None, ACTIVATIONS))}.')


def require_norm(op: str, weight: Tensor | None, bias: Tensor | None) -> None:
    """Raises ValueError where a layer norm has one of its parameters only."""
    if (weight is None) != (bias is None):
        raise ValueError(f'{op}: norm_weight and norm_bias go together.')


def given_tensors(op: str, named: Iterable[tuple[str, Tensor | None, Sequence[int]]]) -> list[Tensor]:
    """Returns the tensors of (name, tensor, expected shape) that are there.

    Raises:
        ValueError: One of them has another shape, or is elsewhere than the others.
    """
    tensors: list[Tensor] = []
    for name, tensor, shape in named:
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise ValueError(f'{op}: {name} must be {tuple(shape)}, not {tuple(tensor.shape)}.')
        if tensors and tensor.device != tensors[0].device:
            raise ValueError(f'{op}: {name} is on {tensor.device}, and others are on {tensors[0].device}.')
        tensors.append(tensor)
    return tensors
