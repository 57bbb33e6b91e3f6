"""The zip file that ``torch.save`` writes: a pickle, and a record of raw numbers for each storage."""
from __future__ import annotations

import math
import os
import pickle
import zipfile
from typing import Any

import torch
from torch import Tensor

from mmmamba.convert import inert_pickle
from mmmamba.convert.inert_pickle import StorageRecord, TensorRecord
from mmmamba.errors import InputError

_DTYPES = {
    'torch.HalfStorage': torch.float16,
    'torch.BFloat16Storage': torch.bfloat16,
    'torch.FloatStorage': torch.float32,
    'torch.DoubleStorage': torch.float64,
    'torch.ByteStorage': torch.uint8,
    'torch.CharStorage': torch.int8,
    'torch.ShortStorage': torch.int16,
    'torch.IntStorage': torch.int32,
    'torch.LongStorage': torch.int64,
}


class TorchArchive:
    """A file of ``torch.save``, opened to be looked into rather than run.

    Args:
        path: The file.

    Raises:
        InputError: Not such a file, or a damaged one. The messages of this class do not name the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except OSError as error:
            raise InputError(error.strerror or str(error)) from error
        except Exception as error:  # zipfile meets damage with errors of many kinds
            raise InputError(self._kind_of_other_file() or 'not a whole file of torch.save') from error
        self._storages: dict[str, bytearray] = {}
        try:
            self._root = self._find_root()
        except InputError:
            self._zip.close()
            raise

    def __enter__(self) -> TorchArchive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def tree(self) -> Any:
        """Returns what was saved, see :func:`mmmamba.convert.inert_pickle.load`."""
        try:
            return inert_pickle.load(self._read(f'{self._root}data.pkl'))
        except pickle.UnpicklingError as error:
            raise InputError(f'damaged pickle ({error})') from error

    def tensors(self, records: dict[str, TensorRecord]) -> dict[str, Tensor]:
        """Reads the values.

        Raises:
            InputError: A tensor that its record does not hold, or all of them together more than the file holds.
        """
        budget = os.path.getsize(self._path)
        tensors = {}
        for name, record in records.items():
            try:
                self._check(record)
            except (TypeError, ValueError, AttributeError) as error:
                raise InputError(f'tensor {name}: {error}') from error
            dtype = _DTYPES[record.storage.type_name]
            budget -= math.prod(record.shape) * dtype.itemsize
            if budget < 0:
                raise InputError('its tensors are larger than the file')
            storage = torch.frombuffer(self._storage(record.storage), dtype=dtype)
            tensors[name] = torch.as_strided(storage, record.shape, record.stride, record.offset).clone()
        return tensors

    def _check(self, record: TensorRecord) -> None:
        """Raises ValueError, or what Python does with values of wrong types, unless the view lies in its storage."""
        storage, shape, stride = record.storage, record.shape, record.stride
        numbers = (storage.numel, record.offset, *shape, *stride)
        if not isinstance(storage, StorageRecord) or any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError('malformed')
        if storage.type_name not in _DTYPES:
            raise ValueError(f'unsupported {storage.type_name}')
        if len(shape) != len(stride) or len(shape) > 8 or 0 in shape:
            raise ValueError(f'unsupported shape {shape}')
        last = record.offset + sum((size - 1) * step for size, step in zip(shape, stride))
        if last >= storage.numel or math.prod(shape) > storage.numel:
            raise ValueError('reaches beyond its storage')
        if len(self._storage(storage)) != storage.numel * _DTYPES[storage.type_name].itemsize:
            raise ValueError('its storage does not have the size of its record')

    def _storage(self, storage: StorageRecord) -> bytearray:
        if storage.key not in self._storages:
            self._storages[storage.key] = bytearray(self._read(f'{self._root}data/{storage.key}'))
        return self._storages[storage.key]

    def _find_root(self) -> str:
        names = self._zip.namelist()
        roots = [name[:-len('data.pkl')] for name in names if name.rpartition('/')[2] == 'data.pkl']
        if len(roots) != 1:
            raise InputError('a zip file, but not one of torch.save')
        root = roots[0]
        if f'{root}constants.pkl' in names:
            raise InputError('a TorchScript archive; save the state dict of the model instead')
        if f'{root}byteorder' in names and self._read(f'{root}byteorder') != b'little':
            raise InputError('written on a big-endian machine')
        return root

    def _read(self, name: str) -> bytes:
        try:
            # torch.save never compresses, so a record is no larger than the file; a compressed one could be a bomb.
            if self._zip.getinfo(name).compress_type != zipfile.ZIP_STORED:
                raise InputError('compressed, so not written by torch.save')
            return self._zip.read(name)
        except InputError:
            raise
        except Exception as error:  # zipfile meets damage with errors of many kinds
            raise InputError(f'record {name} is missing or damaged') from error

    def _kind_of_other_file(self) -> str | None:
        with open(self._path, 'rb') as file:
            head = file.read(2)
        if not head:
            return 'the file is empty'
        if head[:1] == pickle.PROTO and head[1:] in (b'\2', b'\3', b'\4', b'\5'):
            return 'a pickle outside of a zip file; load and save it again with PyTorch 1.6 or later'
        return None
