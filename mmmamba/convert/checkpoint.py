"""Checkpoints: read whatever a reference saved, write what mmengine loads, compare weights with a model's."""
from __future__ import annotations

import errno
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import PicklingError
from typing import Any

import torch
from torch import Tensor

from mmmamba.convert.archive import TorchArchive
from mmmamba.convert.inert_pickle import Placeholder, TensorRecord
from mmmamba.convert.key_map import StateDict
from mmmamba.errors import InputError, first_names
from mmmamba.files import write_atomically

_ENTRIES = ('ema', 'model_ema', 'state_dict_ema', 'model', 'state_dict')
"""Where a checkpoint keeps its weights, the preferred first: results are reported of the averaged ones."""

_MAX_DEPTH = 64
_MAX_MODULES = 20_000
_HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Checkpoint:
    """Weights of a file.

    Attributes:
        state_dict: In the names of the file; nothing in it is of half precision.
        origin: The entry of the file that they were in, e.g. ``ema``, or ``''``.
        upcast: How many tensors were float16 or bfloat16 and are float32 now.
        meta: What the file says under ``meta`` (mmengine's: epoch, config, classes of the data set); empty without.
    """

    state_dict: StateDict
    origin: str
    upcast: int
    meta: dict[str, Any]


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads weights from a file of ``torch.save`` without importing or executing anything that the file names.

    The file holds a state dict; a pickled model, whose classes need not exist here; or a dict with one of these under
    ``ema``, ``model_ema``, ``state_dict_ema``, ``model`` or ``state_dict``. Of several, the first in this order is
    taken.

    Raises:
        InputError: No such file, a damaged one, or one without weights.
    """
    try:
        with TorchArchive(path) as archive:
            tree = archive.tree()
            origin, holder = _weights_of(tree)
            tensors = archive.tensors(_walk(holder) if isinstance(holder, Placeholder) else holder)
    except InputError as error:
        raise InputError(f'{os.fspath(path)}: {error}') from error
    halves = [name for name, tensor in tensors.items() if tensor.dtype in _HALVES]
    meta = tree.get('meta') if isinstance(tree, dict) else None
    return Checkpoint({**tensors, **{name: tensors[name].float() for name in halves}}, origin, len(halves),
                      meta if isinstance(meta, dict) else {})


def write_checkpoint(path: str | os.PathLike[str], state_dict: StateDict, meta: dict[str, Any]) -> None:
    """Writes a checkpoint of mmengine's layout; the file appears whole or not at all.

    Raises:
        InputError: The folder does not exist or cannot be written to.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f'cannot write {path}: {os.strerror(errno.ENOENT)}')
    content = io.BytesIO()
    try:
        torch.save({'state_dict': state_dict, 'meta': meta}, content)
        write_atomically(path, content.getvalue())
    except (OSError, RuntimeError, PicklingError) as error:  # what torch cannot serialise is one of the latter two
        raise InputError(f'cannot write {path}: {getattr(error, "strerror", None) or error}') from error


def require_fit(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], message: str) -> None:
    """Checks that weights have the names and shapes that a model has.

    Args:
        expected: The model's state dict.
        weights: Another state dict.
        message: What the error begins with.

    Raises:
        InputError: Names are missing or unknown, or shapes differ; it names the first of each kind.
    """
    missing = [name for name in expected if name not in weights]
    unknown = [name for name in weights if name not in expected]
    reshaped = [f'{name} is {tuple(weights[name].shape)}, not {tuple(tensor.shape)}'
                for name, tensor in expected.items() if name in weights and weights[name].shape != tensor.shape]
    kinds = (('weights are missing', missing), ('are unknown', unknown), ('have another shape', reshaped))
    problems = [f'{len(names)} {phrase} ({first_names(names)})' for phrase, names in kinds if names]
    if problems:
        raise InputError(f'{message}: {"; ".join(problems)}')


def _weights_of(tree: Any) -> tuple[str, Any]:
    """Returns the entry that holds the weights, and its name."""
    if _holds_weights(tree):
        return '', tree
    if isinstance(tree, dict):
        for entry in _ENTRIES:
            if _holds_weights(tree.get(entry)):
                return entry, tree[entry]
    raise InputError(f'neither a state dict nor a model, and none under {", ".join(_ENTRIES)}')


def _holds_weights(value: Any) -> bool:
    if isinstance(value, Placeholder):
        return _is_module(value)
    return (isinstance(value, dict) and bool(value)
            and all(isinstance(key, str) and isinstance(item, TensorRecord) for key, item in value.items()))


def _is_module(value: Any) -> bool:
    return (isinstance(value, Placeholder) and isinstance(value.state, dict)
            and all(isinstance(value.state.get(group), dict) for group in ('_parameters', '_buffers', '_modules')))


def _walk(root: Placeholder) -> dict[str, TensorRecord]:
    """Returns the tensors of a pickled module and its children, named and ordered as in ``Module.state_dict``."""
    records: dict[str, TensorRecord] = {}
    stack: list[tuple[str, Any]] = [('', root)]
    visited = 0
    while stack:
        prefix, module = stack.pop()
        visited += 1
        if visited > _MAX_MODULES or prefix.count('.') > _MAX_DEPTH:
            raise InputError('its modules nest without end: one contains itself')
        if not _is_module(module):
            raise InputError(f'{prefix[:-1]} is not a module')
        state = module.state
        unsaved = state.get('_non_persistent_buffers_set')
        buffers = {name: record for name, record in state['_buffers'].items()
                   if not (isinstance(unsaved, set) and name in unsaved)}
        for name, record in {**state['_parameters'], **buffers}.items():
            if isinstance(record, TensorRecord):
                records[f'{prefix}{name}'] = record
            elif record is not None:
                raise InputError(f'{prefix}{name} is not a tensor')
        children = [(f'{prefix}{name}.', child) for name, child in state['_modules'].items() if child is not None]
        stack.extend(reversed(children))
    return records
