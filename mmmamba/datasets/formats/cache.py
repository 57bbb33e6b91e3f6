"""Where converted annotations are kept: a folder for each state of a data set, complete or not there."""
from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmmamba.files import locked, write_json


def keep(name: str, make: Callable[[], Mapping[str, Any]]) -> Path:
    """Writes JSON files into a folder of the cache, unless it is there.

    Of several processes that share the cache, one does so, and the others wait for it.

    Args:
        name: Of the folder: a digest of what the contents are made from.
        make: Returns the contents: names of files → what :func:`mmmamba.files.write_json` takes.

    Returns:
        The folder.
    """
    kept = find(name)
    if kept:
        return kept
    root = _writable_root()
    with locked(root / f'.{name}.lock'):
        return find(name) or _write(root, name, make())


def _write(root: Path, name: str, contents: Mapping[str, Any]) -> Path:
    """Writes a folder of the cache aside, and renames it, unless another process was faster."""
    draft = Path(tempfile.mkdtemp(prefix='.draft-', dir=root))
    try:
        for file, content in contents.items():
            write_json(draft / file, content)
        draft.chmod(0o755)
        try:
            os.rename(draft, root / name)
        except OSError:
            if not (root / name).is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return root / name


def find(name: str) -> Path | None:
    """Returns a folder of the cache; None if it is not there."""
    for root in (_home_root(), _temporary_root()):
        if root and os.path.isdir(root / name):  # a home that may not be read has none
            return root / name
    return None


def _writable_root() -> Path:
    root = _home_root()
    if root:
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError:
            pass
        else:
            if os.access(root, os.W_OK | os.X_OK):
                return root
    return _temporary_root() or Path(tempfile.mkdtemp(prefix='mmmamba-'))


def _home_root() -> Path | None:
    """Returns ``$XDG_CACHE_HOME/mmmamba/datasets``, by default in ``~/.cache``; None for a user without a home."""
    named = os.environ.get('XDG_CACHE_HOME', '')
    try:
        cache = Path(named) if os.path.isabs(named) else Path.home() / '.cache'
    except RuntimeError:
        return None
    return cache / 'mmmamba' / 'datasets'


def _temporary_root() -> Path | None:
    """Makes a temporary folder that this user's processes share; None if somebody else has made it."""
    user = os.getuid() if hasattr(os, 'getuid') else 'datasets'
    root = Path(tempfile.gettempdir(), f'mmmamba-{user}')
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        stat = root.lstat()
    except OSError:
        return None
    # Annotations that another user put there would be read as if they were converted from this user's files.
    trusted = not root.is_symlink() and (user == 'datasets' or stat.st_uid == user) and not stat.st_mode & 0o022
    return root if trusted else None
