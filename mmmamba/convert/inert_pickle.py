"""Reading a pickle as data: nothing is imported, nothing that the file names is called.

A pickle is a program, and ``torch.load`` runs it. To get the weights out of a pickled model, neither its classes nor
its program are needed: here every global that the file names becomes a :class:`Placeholder`, which takes whatever
arguments and state the file hands to it and does nothing with them. The few globals that describe tensors and
containers have stand-ins of our own, and a tensor stays a description (:class:`TensorRecord`) until it is asked for.
"""
from __future__ import annotations

import io
import pickle
import pickletools
from dataclasses import dataclass
from typing import Any


class Placeholder:
    """An object of a class that we do not import. ``state`` is what the file gave it, usually its ``__dict__``."""

    origin = ''
    """The class the file names, with its module."""

    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Drops an item of a dict-like object."""

    def append(self, item: Any) -> None:
        """Drops an item of a list-like object."""

    extend = append
    add = append


@dataclass(frozen=True)
class StorageRecord:
    """Where a tensor's values are: ``numel`` numbers, in the archive's record ``key``."""

    type_name: str
    key: str
    numel: int


@dataclass(frozen=True)
class TensorRecord:
    """A strided view of a storage; counts in elements."""

    storage: StorageRecord
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Dict(dict):
    """For OrderedDict: its attributes (a state dict's ``_metadata``) are dropped."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)

    def __setstate__(self, state: Any) -> None:
        pass


class _RebuildTensor(Placeholder):
    """For ``torch._utils._rebuild_tensor`` and ``_rebuild_tensor_v2``."""

    def __new__(cls, *args: Any) -> Any:
        storage, offset, shape, stride = args[:4]
        return TensorRecord(storage, offset, shape, stride)


class _RebuildParameter(Placeholder):
    """For ``torch._utils._rebuild_parameter`` and ``_rebuild_parameter_with_state``: a parameter is its tensor."""

    def __new__(cls, *args: Any) -> Any:
        return args[0]


class _RebuildFromType(Placeholder):
    """For ``torch._tensor._rebuild_from_type_v2``, a tensor with attributes: (rebuild, type, its arguments, state)."""

    def __new__(cls, *args: Any) -> Any:
        rebuild, _, rebuild_args = args[:3]
        if rebuild not in (_RebuildTensor, _RebuildParameter):
            return Placeholder()
        return rebuild(*rebuild_args)


_STAND_INS = {
    'collections.OrderedDict': _Dict,
    'builtins.set': set,
    '__builtin__.set': set,  # as protocol 2 spells it
    'torch.Size': tuple,
    'torch._utils._rebuild_tensor': _RebuildTensor,
    'torch._utils._rebuild_tensor_v2': _RebuildTensor,
    'torch._utils._rebuild_parameter': _RebuildParameter,
    'torch._utils._rebuild_parameter_with_state': _RebuildParameter,
    'torch._tensor._rebuild_from_type_v2': _RebuildFromType,
}


class _InertUnpickler(pickle.Unpickler):
    # Only classes are returned, never functions: the file could set attributes on a function object of ours, while all
    # that pickle can do to a class is to make an instance.

    def find_class(self, module: str, name: str) -> type:
        origin = f'{module}.{name}'
        return _STAND_INS.get(origin) or type('Placeholder', (Placeholder,), {'origin': origin})

    def persistent_load(self, pid: Any) -> StorageRecord:
        kind, storage_type, key, _, numel = pid
        if kind != 'storage':
            raise pickle.UnpicklingError(f'a persistent object of kind {kind!r}')
        return StorageRecord(storage_type.origin, str(key), numel)


def load(data: bytes) -> Any:
    """Reads the object in a pickle: containers, numbers and strings as they are, tensors and all else as records.

    Raises:
        pickle.UnpicklingError: Damaged, or unreasonable, data.
    """
    try:
        _check_opcodes(data)
        return _InertUnpickler(io.BytesIO(data)).load()
    except Exception as error:  # a damaged pickle makes any operation fail, and each in its own way
        raise pickle.UnpicklingError(str(error) or type(error).__name__) from error


def _check_opcodes(data: bytes) -> None:
    """Refuses what makes the C unpickler allocate without bounds, or look into the process's extension registry."""
    for opcode, arg, _ in pickletools.genops(data):
        oversized = 'PUT' in opcode.name and isinstance(arg, int) and arg > len(data)
        if oversized or opcode.name.startswith('EXT'):
            raise pickle.UnpicklingError(f'unreasonable {opcode.name}')
