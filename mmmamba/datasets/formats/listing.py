"""What lies in the folders of a data set, each folder and text read once; and a digest of all that was looked at."""
from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmdet.utils.misc import IMG_EXTENSIONS

from mmmamba.errors import InputError

_SPLIT = re.compile(r'(train|val|test)(?:id|idation|ing)?(?:[-_]?\d{4})?', re.IGNORECASE)


def split_named(name: str) -> str | None:
    """Returns the split that a folder or a file is named after: ``'val'`` for ``val``, ``valid`` or ``val2017``.

    Args:
        name: Without an ending.

    Returns:
        ``'train'``, ``'val'``, ``'test'``, or None.
    """
    found = _SPLIT.fullmatch(name)
    return found[1].lower() if found else None


def name_order(name: str) -> tuple:
    """Returns a key to sort names by, in which numbers count as such: ``a-2.jpg`` comes before ``a-10.jpg``."""
    parts = re.split('0*([0-9]+)', name)
    return [(len(part), part) if index % 2 else part for index, part in enumerate(parts)], name


def is_image(name: str) -> bool:
    """Tells whether a file has the ending of an image, in small letters or capitals."""
    return os.path.splitext(name)[1].lower() in IMG_EXTENSIONS


class _Folder(NamedTuple):
    files: dict[str, tuple[int, int]]
    """Name → bytes, and the time of the last change in nanoseconds."""
    folders: list[str]


class Listing:
    """Reads folders and texts, and remembers them.

    Hidden files are left out, among them those that macOS writes next to images. Links are followed.
    """

    def __init__(self) -> None:
        self._folders: dict[Path, _Folder] = {}
        self._stems: dict[tuple[Path, str], dict[str, str]] = {}
        self._images: dict[Path, dict[str, list[str]]] = {}
        self._texts: dict[Path, bytes] = {}

    def files(self, folder: Path) -> dict[str, tuple[int, int]]:
        """Returns the files in a folder, in the order of their names; none if there is no such folder."""
        return self._read(folder).files

    def folders(self, folder: Path) -> list[str]:
        """Returns the folders in a folder, in the order of their names; none if there is no such folder."""
        return self._read(folder).folders

    def splits(self, folder: Path) -> dict[str, Path]:
        """Returns the folders in a folder that are named after splits; of two for one split, the first."""
        found: dict[str, Path] = {}
        for name in self.folders(folder):
            split = split_named(name)
            if split:
                found.setdefault(split, folder / name)
        return found

    def folder_named(self, folder: Path, *names: str) -> Path | None:
        """Returns the first folder in a folder that has one of the names, whatever its capitals; None if none has."""
        lower = {name.lower(): name for name in reversed(self.folders(folder))}
        return next((folder / lower[name] for name in names if name in lower), None)

    def walk(self, folder: Path) -> Iterator[Path]:
        """Yields a folder and all folders in it, each once, however links lead to it."""
        seen, waiting = set(), [folder]
        while waiting:
            current = waiting.pop()
            real = os.path.realpath(current)
            if real not in seen:
                seen.add(real)
                yield current
                waiting += [current / name for name in reversed(self.folders(current))]

    def images(self, folder: Path) -> list[Path]:
        """Returns the images in a folder and in all folders in it."""
        return [inner / name for inner in self.walk(folder) for name in self.files(inner) if is_image(name)]

    def by_stem(self, folder: Path, ending: str) -> dict[str, str]:
        """Returns the names of a folder's files with an ending, such as ``'.txt'``, by their names without it."""
        key = (folder, ending)
        if key not in self._stems:
            names = map(os.path.splitext, self.files(folder))
            self._stems[key] = {stem: stem + found for stem, found in names if found.lower() == ending}
        return self._stems[key]

    def images_by_stem(self, folder: Path) -> dict[str, list[str]]:
        """Returns the names of a folder's images by their names without an ending."""
        if folder not in self._images:
            found: dict[str, list[str]] = {}
            for name in filter(is_image, self.files(folder)):
                found.setdefault(os.path.splitext(name)[0], []).append(name)
            self._images[folder] = found
        return self._images[folder]

    def text(self, path: Path) -> str:
        """Returns a text file's content, as :func:`decoded`."""
        if path not in self._texts:
            self._texts[path] = path.read_bytes()
        return decoded(self._texts[path], path)

    def digest(self, *more: object) -> str:
        """Returns a name for the state of all that was looked at: names, sizes and times of files, content of texts.

        Args:
            more: What else decides a conversion.
        """
        digest = hashlib.sha256(repr(more).encode())
        for folder in sorted(self._folders):
            digest.update(f'{folder}\0{self._folders[folder]}\0'.encode(errors='surrogateescape'))
        for path in sorted(self._texts):
            digest.update(f'{path}\0'.encode(errors='surrogateescape') + self._texts[path])
        return digest.hexdigest()[:20]

    def _read(self, folder: Path) -> _Folder:
        if folder not in self._folders:
            files, folders = {}, []
            for entry in _entries(folder):
                try:
                    if entry.is_dir():
                        folders.append(entry.name)
                    else:
                        stat = entry.stat()
                        files[entry.name] = (stat.st_size, stat.st_mtime_ns)
                except OSError:  # a link that leads nowhere
                    continue
            self._folders[folder] = _Folder(files, folders)
        return self._folders[folder]


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith('.')]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=lambda entry: entry.name)


def decoded(content: bytes, path: Path) -> str:
    """Decodes a text in UTF-8, with or without a mark at its start (BOM), or in UTF-16 with one.

    Args:
        content: What is in the file.
        path: The file, for the message.

    Raises:
        InputError: It is neither.
    """
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode('utf-16' if marked else 'utf-8-sig')
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise InputError(f'{path}, line {line}: this is not text in UTF-8: save it so') from None
