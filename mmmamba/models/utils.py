"""What the names and numbers of a config stand for: sizes of a backbone, stochastic depth, norms."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from mmcv.cnn import build_norm_layer
from mmdet.registry import MODELS

from mmmamba.errors import InputError
from mmmamba.layers.common import YOLO_BATCH_NORM, LayerNorm2d, NormLayer
from mmmamba.ops.scan.orders import PATTERNS

# For norm_cfg=dict(type='LayerNorm2d', eps=1e-6) of mmdet's heads and necks; mmcv's own 'LN' is not for maps.
MODELS.register_module(module=LayerNorm2d)

NUM_STAGES = 4
"""Of every backbone: C2 (stride 4) … C5 (stride 32)."""


class Arch(NamedTuple):
    """Size of a backbone: blocks and channels of its four stages."""

    depths: Sequence[int]
    widths: Sequence[int]


Row = TypeVar('Row', bound=NamedTuple)


def resolve_arch(table: Mapping[str, Row], name: str | None, **given: Any) -> Row:
    """Returns the size that a config asks for.

    Args:
        table: Published sizes by name: rows of one type, which has ``depths`` and ``widths`` (``depth`` and ``width``
            if there are no stages) and, for some models, fields of its own with defaults.
        name: The row; None for one of ``given`` alone, which then has these two.
        given: Fields that replace the row's own; None keeps that.

    Raises:
        InputError: There is no such row; ``name`` is None and one of the two is too; or ``depths`` or ``widths`` is
            not four positive integers.
    """
    given = {field: value for field, value in given.items() if value is not None}
    row_type: Any = type(next(iter(table.values())))
    sizes = [field for field in row_type._fields if field not in row_type._field_defaults]
    if name is not None and name not in table:
        raise InputError(f'arch must be one of {list(table)}, or None with {" and ".join(sizes)}; got {name!r}')
    if name is None and not given.keys() >= set(sizes):
        raise InputError(f'arch=None needs both {" and ".join(sizes)}')
    row = row_type(**given) if name is None else table[name]._replace(**given)
    if 'depths' in sizes:
        for field in sizes:
            require_positive_integers(field, getattr(row, field), NUM_STAGES)
    return row


Directions = Sequence[Sequence[str]]
"""Names in :data:`mmmamba.ops.scan.orders.ORDERS` for each scan of a model, from the first scan to the last."""


def directions_of_scans(directions: Directions | None, scans: int, made: int) -> Iterator[Sequence[str]]:
    """Yields the directions of each scan; those of 'cross' for None.

    Args:
        directions: Those of all scans, or of those that are made.
        scans: How many the whole model has.
        made: How many of them come before the last output; the others are not made.

    Raises:
        InputError: There are as many directions neither as scans nor as scans that are made.
    """
    if directions is None:
        directions = [PATTERNS['cross']] * made
    if len(directions) not in (scans, made):
        raise InputError(f'directions must name those of each of the {scans} scans, got {len(directions)}')
    return iter(directions)


def require_positive_integers(name: str, values: Sequence[int], count: int) -> None:
    """Raises InputError unless the argument ``name`` is so many positive integers."""
    if len(values) != count or not all(isinstance(value, int) and value > 0 for value in values):
        raise InputError(f'{name} must be {count} positive integers, got {tuple(values)}')


def drop_path_rates(last: float, depths: Sequence[int]) -> Iterator[float]:
    """Yields the rate of stochastic depth of each block of all stages: linear from 0 at the first to ``last``.

    Raises:
        InputError: ``last`` is not in [0, 1).
    """
    if not 0 <= last < 1:
        raise InputError(f'drop_path_rate must be in [0, 1), got {last}')
    blocks = sum(depths)
    return iter([last * index / max(blocks - 1, 1) for index in range(blocks)])


def norm_layer_from_cfg(norm_cfg: dict | None) -> NormLayer:
    """Returns the layers' ``norm_layer`` for mmdet's ``norm_cfg``; None means the batch norm of the YOLO family."""
    if norm_cfg is None:
        return YOLO_BATCH_NORM
    return lambda channels: build_norm_layer(norm_cfg, channels)[1]
