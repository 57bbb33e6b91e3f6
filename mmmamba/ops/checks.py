"""Checks of what an op is given. They run before every kernel, so they format no message in vain."""
from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor


def require_map(op: str, x: Tensor) -> None:
    """Raises ValueError unless ``x`` is a batch of maps."""
    if x.dim() != 4:
        raise ValueError(f'{op}: x must be (batch, channels, height, width), not {tuple(x.shape)}.')


def given_tensors(op: str, named: Iterable[tuple[str, Tensor | None, Sequence[int]]]) -> list[Tensor]:
    """Returns the tensors of (name, tensor, expected shape) that are there.

    Raises:
        ValueError: One of them is complex or an integer, has another shape, or is elsewhere than the others; the
            message names the op and the tensor.
    """
    tensors: list[Tensor] = []
    for name, tensor, shape in named:
        if tensor is None:
            continue
        if tensor.is_complex():
            raise ValueError(f'{op}: {name} is complex; only real tensors are supported.')
        if not tensor.is_floating_point():
            raise ValueError(f'{op}: {name} must be floating point, not {tensor.dtype}.')
        if tensor.shape != shape:
            raise ValueError(f'{op}: {name} must be {tuple(shape)}, not {tuple(tensor.shape)}.')
        if tensors and tensor.device != tensors[0].device:
            raise ValueError(f'{op}: {name} is on {tensor.device}, and others are on {tensors[0].device}.')
        tensors.append(tensor)
    return tensors
