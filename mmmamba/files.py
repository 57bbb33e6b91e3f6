"""Files that are either complete or not there, and how their paths are shown."""
from __future__ import annotations

import errno
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmmamba.errors import InputError

if sys.platform != 'win32':
    import fcntl

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Writes ``content`` to ``path`` so that a reader, or a crash, sees the old file or the new one, nothing between.

    Args:
        path: Where to write; the folder is created if need be.
        content: What to write.

    Raises:
        InputError: The disk (or quota) is full. What was at ``path`` is still there, and no partial file remains.
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


def write_json(path: str | Path, content: Any, indent: int | None = None) -> None:
    """Writes JSON as the standard has it, atomically: a NaN or an infinity, which it does not have, becomes null.

    Args:
        path: Where to write; see :func:`write_atomically`.
        content: Dicts with names as keys, lists, tuples, texts, numbers, booleans and None.
        indent: Spaces a level; None for a single line.
    """
    write_atomically(path, f'{json.dumps(finite(content), indent=indent, allow_nan=False)}\n'.encode())


def finite(content: Any) -> Any:
    """Returns ``content`` with None instead of each NaN and infinity; see :func:`write_json`."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def from_here(path: str | Path) -> str:
    """Returns a path as one types it: relative, if it is in the current folder."""
    path, here = Path(path), Path.cwd()
    return str(path.relative_to(here) if here in path.parents else path)


@contextmanager
def locked(path: Path, seconds: float = math.inf) -> Iterator[None]:
    """Lets in one process at a time, on whatever machine; all of them where files cannot be locked.

    The system takes the lock from a process that ends, however that may be.

    Args:
        path: A file for this purpose, which is there meanwhile.
        seconds: How long to wait.

    Raises:
        TimeoutError: Another process is still in.
    """
    if sys.platform == 'win32':
        yield
        return
    end = time.monotonic() + seconds
    while True:
        file = path.open('w')
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.close()
            if time.monotonic() > end:
                raise TimeoutError(f'{path} is locked') from None
            time.sleep(0.1)
            continue
        except OSError:  # of some network's file systems
            pass
        if os.fstat(file.fileno()).st_nlink:
            break
        file.close()  # whoever was in has removed the file
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        file.close()


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself survive a power cut, where the system can (Windows cannot open a folder)."""
    if os.name == 'posix':
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
