"""Let ``torch.load`` read mmengine's checkpoints with ``weights_only=True``, its default since PyTorch 2.6.

mmengine's runner saves, with the weights, its message hub: histories of logged values (``HistoryBuffer``, which hold
NumPy arrays, NumPy scalars and references to their own statistics) that ``torch.load`` refuses, so that no checkpoint
could be resumed. They are allowed here one by one; everything else is refused as before. Earlier versions of PyTorch
read checkpoints without this check unless asked for it, and are left alone.

OneDL's mmengine allows what its checkpoints hold too, ``getattr`` without limits among it, and reads a file that is
refused a second time without the check, which runs any code in it. Here it refuses as mmengine's original does.
"""
from __future__ import annotations

import inspect
from pickle import UnpicklingError
from typing import Any, Callable

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint

DTYPES = ('bool', 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64', 'float16', 'float32',
          'float64')
"""Types of the arrays and scalars that may be read: plain numbers."""


def allow_checkpoint_globals() -> None:
    """Allows what mmengine's checkpoints hold, under the names that NumPy 1 and NumPy 2 give it."""
    if torch.__version__ >= '2.6':  # compares as a version
        torch.serialization.add_safe_globals(_checkpoint_globals())


def read_checkpoints_once() -> None:
    """Has OneDL's mmengine read a checkpoint with ``torch.load`` alone, as mmengine's original does."""
    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = torch.load


def _checkpoint_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    # NumPy keeps these two functions private; an array and a scalar tell with which ones they are rebuilt.
    reconstruct: Any = np.empty(0).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (_history_statistic, 'builtins.getattr'),
        (np.ndarray, 'numpy.ndarray'),
        (np.dtype, 'numpy.dtype'),
    ]
    for core in ('numpy.core', 'numpy._core'):
        allowed += [(reconstruct, f'{core}.multiarray._reconstruct'), (scalar, f'{core}.multiarray.scalar')]
    # A dtype's class does not occur in the file, but the state of an instance is only set where its class is allowed.
    allowed += [(type(np.dtype(name)), f'numpy.dtypes.{type(np.dtype(name)).__name__}') for name in DTYPES]
    return allowed


def _history_statistic(owner: Any, name: str) -> Callable[..., Any]:
    """Does what ``getattr`` may do in a checkpoint: name a public method of ``HistoryBuffer``.

    A history's state holds its statistics, such as ``HistoryBuffer.mean``; pickle writes a method as a call of
    ``getattr``, which, unrestricted, would reach anything.
    """
    method = vars(HistoryBuffer).get(name) if owner is HistoryBuffer and isinstance(name, str) else None
    if not inspect.isfunction(method) or name.startswith('_'):
        raise UnpicklingError(f'a checkpoint may name statistics of HistoryBuffer, not {name!r} of {owner!r}')
    return method
