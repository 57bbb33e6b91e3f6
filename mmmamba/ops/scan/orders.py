"""The order in which each direction of a scan visits the pixels of a map. Another paper's scan is a row of ORDERS."""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Callable, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmamba.errors import InputError


class Order(NamedTuple):
    """How a direction visits a map.

    Attributes:
        visit: Takes the indices of the pixels, (H, W), and returns them in the order of the visits, (tokens,). Each
            at most once.
        multiple: Before that, the map is padded at the bottom and on the right to sides that are multiples of it.
        parts: ``visit`` returns one of so many parts of the padded map, all of one size.
    """

    visit: Callable[[Tensor], Tensor]
    multiple: int = 1
    parts: int = 1


def _row_major(pixels: Tensor) -> Tensor:
    return pixels.flatten()


def _column_major(pixels: Tensor) -> Tensor:
    return pixels.t().flatten()


def _windowed(pixels: Tensor, side: int) -> Tensor:
    """Window after window, both windows and the pixels in them row-major."""
    height, width = pixels.shape
    return pixels.view(height // side, side, width // side, side).transpose(1, 2).flatten()


def _every_other(pixels: Tensor, row: int, column: int) -> Tensor:
    submap = pixels[row::2, column::2]
    return _column_major(submap) if row else _row_major(submap)


def _reversed(pixels: Tensor, visit: Callable[[Tensor], Tensor]) -> Tensor:
    return visit(pixels).flip(0)


_ORDERS = {
    'h': Order(_row_major),
    'v': Order(_column_major),
    **{f'w{side}': Order(partial(_windowed, side=side), multiple=side) for side in (2, 7)},
    **{f'a{row}{column}': Order(partial(_every_other, row=row, column=column), multiple=2, parts=4)
       for row in (0, 1) for column in (0, 1)},
}
ORDERS = {
    **_ORDERS,
    **{f'{name}_flip': order._replace(visit=partial(_reversed, visit=order.visit)) for name, order in _ORDERS.items()},
}
"""Of every direction, by name: ``h`` row-major, ``v`` column-major, ``w2`` and ``w7`` in windows of that side
(LocalMamba, arXiv 2403.09338), ``a00`` … ``a11`` every other row and column from the two offsets on (EfficientVMamba,
arXiv 2403.09977); with ``_flip`` reversed, padding included."""

PATTERNS = {
    'cross': ('h', 'v', 'h_flip', 'v_flip'),
    'atrous': ('a00', 'a10', 'a01', 'a11'),
}
"""The directions of a scan with a name of its own. Those of 'atrous' visit every pixel once between them."""


def directions_of(pattern: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the directions of a pattern, or those that are named.

    Raises:
        InputError: There is no pattern or direction of that name, or there are no directions.
    """
    if isinstance(pattern, str):
        if pattern not in PATTERNS:
            raise InputError(f'ss2d_scan has no pattern named {pattern!r}; it has {", ".join(PATTERNS)}.')
        return PATTERNS[pattern]
    unknown = [direction for direction in pattern if direction not in ORDERS]
    if unknown or not pattern:
        problem = f'has no direction named {unknown[0]!r}' if unknown else 'needs a direction'
        raise InputError(f'ss2d_scan {problem}; it has {", ".join(ORDERS)}.')
    return tuple(pattern)


def token_count(direction: str, height: int, width: int) -> int:
    """Returns how many tokens a direction visits in a map, padding included."""
    _, multiple, parts = ORDERS[direction]
    return -(-height // multiple) * multiple * (-(-width // multiple) * multiple) // parts


def visited_pixels(direction: str, height: int, width: int, device: torch.device) -> Tensor:
    """Returns the row-major index of every token's pixel (tokens,), int64.

    A padded pixel has the index height·width: its x is zero, but it takes a step of the scan like any other.
    """
    visit, multiple, _ = ORDERS[direction]
    count = height * width
    pixels = torch.arange(count, device=device).view(height, width)
    if height and width:  # PyTorch 2.4 pads no empty map
        # With zeros: a program traced for open sizes would keep any other value as it is in the example.
        pixels = F.pad(pixels - count, (0, -width % multiple, 0, -height % multiple)) + count
    return visit(pixels)


@torch.library.custom_op(
    'mmmamba::scan_order',
    mutates_args=(),
    schema='(str direction, SymInt height, SymInt width, Device device) -> Tensor')
def scan_order(direction: str, height: int, width: int, device: torch.device) -> Tensor:
    """Returns :func:`visited_pixels`; as an operator, so that a program traced for one size is one for all sizes."""
    return visited_pixels(direction, height, width, device)


@scan_order.register_fake
def _(direction: str, height: int, width: int, device: torch.device) -> Tensor:
    return torch.empty(token_count(direction, height, width), dtype=torch.int64, device=device)
