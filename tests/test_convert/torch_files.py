"""Files as ``torch.save`` writes them, made piece by piece so that any piece can lie."""
from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import torch


class Storage:
    """A reference to record ``key``, said to hold ``numel`` numbers."""

    def __init__(self, key: str, numel: object, storage_type: type = torch.FloatStorage) -> None:
        self.key, self.numel, self.storage_type = key, numel, storage_type


class View:
    """Pickles as a tensor: a view of a storage."""

    def __init__(self, storage: object, shape: object, stride: object, offset: object = 0) -> None:
        self.args = storage, offset, shape, stride, False, {}

    def __reduce__(self) -> tuple:
        return torch._utils._rebuild_tensor_v2, self.args


class _Pickler(pickle.Pickler):

    def persistent_id(self, obj: object) -> object:
        if isinstance(obj, Storage):
            return 'storage', obj.storage_type, obj.key, 'cpu', obj.numel
        return None


def write(path: Path, obj: object = None, records: dict[str, bytes] | None = None, *, data: bytes | None = None,
          compression: int = zipfile.ZIP_STORED, byteorder: str = 'little') -> Path:
    """Writes ``obj``, or ``data`` instead of its pickle, and the records of storages."""
    if data is None:
        stream = io.BytesIO()
        _Pickler(stream, protocol=2).dump(obj)
        data = stream.getvalue()
    with zipfile.ZipFile(path, 'w', compression) as archive:
        archive.writestr('archive/data.pkl', data)
        archive.writestr('archive/byteorder', byteorder)
        for key, record in (records or {}).items():
            archive.writestr(f'archive/data/{key}', record)
    return path
