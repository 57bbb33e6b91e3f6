"""Depths and widths of a backbone, from a table or from the config."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from mmmamba.errors import InputError
from mmmamba.models.backbones.staged_backbone import NUM_STAGES


class Arch(NamedTuple):
    """Blocks and channels of the four stages."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]


class ArchRow(Protocol):
    """Row of a table: an :class:`Arch`, or a tuple of more than that."""

    @property
    def depths(self) -> tuple[int, ...]: ...

    @property
    def widths(self) -> tuple[int, ...]: ...


def resolve_arch(
    table: Mapping[str, ArchRow],
    name: str | None,
    depths: Sequence[int] | None,
    widths: Sequence[int] | None,
) -> Arch:
    """The row ``name`` of ``table``, with ``depths`` and ``widths`` instead of its own where they are given.

    Raises:
        InputError: No such row; neither a row nor both lists; or lists that are not four positive integers.
    """
    if name is not None and name not in table:
        raise InputError(f'arch must be one of {list(table)}, or None with depths and widths; got {name!r}')
    if name is None and (depths is None or widths is None):
        raise InputError('arch=None needs both depths and widths')
    row = table.get(name) if name is not None else None
    arch = Arch(
        tuple(depths) if depths is not None else row.depths,
        tuple(widths) if widths is not None else row.widths)
    for field, values in arch._asdict().items():
        require_positive_integers(field, values, NUM_STAGES)
    return arch


def require_positive_integers(name: str, values: Sequence[int], count: int) -> None:
    """Raises InputError unless the argument ``name`` is so many positive integers."""
    if len(values) != count or not all(isinstance(value, int) and value > 0 for value in values):
        raise InputError(f'{name} must be {count} positive integers, got {tuple(values)}')


def drop_path_rates(last: float, depths: Sequence[int]) -> Iterator[float]:
    """Rates of stochastic depth, block by block through all stages: linear from 0 at the first to ``last``.

    Raises:
        InputError: ``last`` is not in [0, 1).
    """
    if not 0 <= last < 1:
        raise InputError(f'drop_path_rate must be in [0, 1), got {last}')
    blocks = sum(depths)
    return iter([last * index / max(blocks - 1, 1) for index in range(blocks)])
