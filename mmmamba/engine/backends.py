"""mmengine's local files, and its log of numbers, so that every reader finds them whole."""
from __future__ import annotations

from pathlib import Path

from mmdet.registry import VISBACKENDS
from mmengine.fileio import LocalBackend, register_backend
from mmengine.visualization import LocalVisBackend

from mmmamba.files import finite, write_atomically


@register_backend('atomic_local')
class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written atomically: ``backend_args=dict(backend='atomic_local')``."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes bytes; see :func:`write_atomically`."""
        write_atomically(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Writes text; see :func:`write_atomically`."""
        write_atomically(filepath, obj.encode(encoding))


@VISBACKENDS.register_module()
class StrictLocalVisBackend(LocalVisBackend):
    """mmengine's ``LocalVisBackend`` (same arguments), whose ``scalars.json`` has null for a NaN or an infinity.

    The gradients' norm is one of them whenever float16 overflows, which is normal, and so is the precision of a class
    that the validation set does not have. Bare ``NaN`` and ``Infinity`` are no JSON.
    """

    def _dump(self, value_dict: dict, file_path: str, file_format: str) -> None:
        super()._dump(finite(value_dict), file_path, file_format)
