"""Files that are either complete or not there."""
from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from mmmamba.errors import InputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Writes ``content`` to ``path`` so that a reader, or a crash, sees the old file or the new one, nothing between.

    Args:
        path: Where to write; the folder is created if need be.
        content: What to write.

    Raises:
        InputError: The disk (or quota) is full. What stood at ``path`` still stands, and no partial file remains.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because a rename is atomic only inside one file system.
    partial = path.with_name(f'.{path.name}.partial')
    try:
        with open(partial, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno in _FULL:
            raise InputError(f'no space left to save {path} ({len(content) / 2**20:.1f} MiB); '
                             f'what was saved before is untouched') from error
        raise
    finally:
        with suppress(OSError):
            partial.unlink()


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself survive a power cut, where the system can (Windows cannot open a folder)."""
    if os.name == 'posix':
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
