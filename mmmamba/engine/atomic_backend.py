"""mmengine's local files, written atomically."""
from __future__ import annotations

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from mmmamba.files import write_atomically


@register_backend('atomic_local')
class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written atomically: ``backend_args=dict(backend='atomic_local')``."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes bytes; see :func:`write_atomically`."""
        write_atomically(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Writes text; see :func:`write_atomically`."""
        write_atomically(filepath, obj.encode(encoding))
