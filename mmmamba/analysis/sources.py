"""What to detect objects in: files, folders, patterns, addresses, cameras and streams, each under its own name."""
from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmdet.utils.misc import IMG_EXTENSIONS

from mmmamba.analysis.media import Video
from mmmamba.analysis.media_download import download, is_address, name_of_address, without_password
from mmmamba.errors import InputError

VIDEO_EXTENSIONS = ('.avi', '.gif', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv')
"""Of the videos that are looked for in a folder; a file that is named may have any ending."""
_STREAM = re.compile(r'(rtsps?|rtmps?)://', re.IGNORECASE)


@dataclass(frozen=True)
class Named:
    """What a source is called.

    Attributes:
        given: By the user.
        name: Of the files about it: unique in a run, also where capitals do not count and endings are left out.
    """

    given: str
    name: str

    @property
    def stem(self) -> str:
        """Returns the name without its ending."""
        return Path(self.name).stem


@dataclass(frozen=True)
class Source(Named):
    """A picture or a video in the file ``path``."""
    path: Path


@dataclass(frozen=True)
class LiveSource(Named):
    """A camera or a stream; ``place`` is what OpenCV opens: the number of a camera, or an address."""
    place: int | str


@dataclass
class Sources:
    """All that a run works on.

    Attributes:
        images: Files of pictures.
        videos: Files of videos.
        live: At most one camera or stream, which does not end by itself.
        failed: A message about each source that cannot be used.
        ignored: A message about each other thing in the folders.
    """

    images: list[Source] = field(default_factory=list)
    videos: list[Source] = field(default_factory=list)
    live: list[LiveSource] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stems: set[str] = set()

    def unique(self, name: str) -> str:
        """Returns the name, or, where an earlier source has it, ``NAME_2``, ``NAME_3``, …"""
        path, number = Path(name), 1
        stem = path.stem
        while stem.lower() in self._stems:
            number += 1
            stem = f'{path.stem}_{number}'
        self._stems.add(stem.lower())
        return f'{stem}{path.suffix}'

    def add_live(self, place: int | str, given: str, name: str) -> None:
        """Adds a camera or a stream."""
        self.live.append(LiveSource(given, self.unique(name), place))


def find_sources(words: Sequence[str], downloads: Path) -> Sources:
    """Finds what the arguments of the command line name.

    Args:
        words: Files, folders, patterns such as ``'in/**/*.jpg'``, http and https addresses of pictures, videos and
            streams, rtsp and rtmp addresses, numbers of cameras.
        downloads: A folder for what is downloaded; each file gets a folder of its own in it.

    Raises:
        InputError: None of them can be used, or several do not end by themselves.
    """
    sources = Sources()
    for number, word in enumerate(map(os.path.expanduser, words)):  # in quotes, the shell leaves ~ as it is
        try:
            if Path(word).exists():  # before all else: files may be called 0 or a[1].jpg
                _add_path(sources, Path(word))
            elif is_address(word):
                (downloads / str(number)).mkdir()
                _add_address(sources, word, downloads / str(number))
            elif _STREAM.match(word):
                sources.add_live(word, without_password(word), _live_name(word))
            elif word.isdecimal():
                sources.add_live(int(word), f'camera {word}', f'camera_{word}')
            elif glob.has_magic(word):
                _add_matches(sources, word)
            elif re.match(r'\w\w+://', word):
                raise InputError(f'{without_password(word)}: an address must begin with http, https, rtsp or rtmp')
            else:
                raise InputError(f'{word}: no such file or folder')
        except InputError as error:
            sources.failed.append(str(error))
    if len(sources.live) > 1:
        raise InputError(f'{len(sources.live)} cameras or streams, which do not end by themselves: name one a call')
    if not (sources.images or sources.videos or sources.live):
        raise InputError('; '.join(sources.failed))
    return sources


def find_images(source: Path) -> tuple[list[Path], list[Path]]:
    """Lists the image files of ``source``: those in a folder, itself, or none if it is another file.

    Returns:
        The images, and what else is in the folder: files of other endings, and folders.

    Raises:
        InputError: If it does not exist, or is a folder without images.
    """
    if source.is_dir():
        images, others = _split(source.iterdir(), _is_image)
        if not images:
            raise InputError(f"{source}: no image in this folder (looked for {', '.join(IMG_EXTENSIONS)})")
        return images, others
    if not source.is_file():
        raise InputError(f'{source}: no such file or folder')
    return ([source] if _is_image(source) else []), []


def _add_path(sources: Sources, path: Path) -> None:
    if not path.is_dir():
        _add_file(sources, path, str(path))
    elif not _add_files(sources, path.iterdir()):
        raise InputError(f"{path}: no image or video in this folder (looked for "
                         f"{', '.join((*IMG_EXTENSIONS, *VIDEO_EXTENSIONS))})")


def _add_matches(sources: Sources, pattern: str) -> None:
    if not _add_files(sources, map(Path, glob.glob(pattern, recursive=True))):
        raise InputError(f'{pattern}: no image or video has such a name')


def _add_files(sources: Sources, paths: Iterable[Path]) -> int:
    files, others = _split(paths, lambda path: _is_image(path) or path.suffix.lower() in VIDEO_EXTENSIONS)
    for path in files:
        _add_file(sources, path, str(path))
    sources.ignored += [f'{path}: {"a folder" if path.is_dir() else "neither image nor video, by its ending"}'
                        for path in others]
    return len(files)


def _add_file(sources: Sources, path: Path, given: str) -> None:
    if _is_image(path):
        sources.images.append(Source(given, sources.unique(path.name), path))
        return
    try:
        Video(path)
    except InputError:
        sources.failed.append(f'{given}: not readable as an image or a video')
    else:
        sources.videos.append(Source(given, sources.unique(path.name), path))


def _add_address(sources: Sources, address: str, folder: Path) -> None:
    path = download(address, folder)
    if path is None:
        sources.add_live(address, without_password(address), _live_name(address))
    else:
        _add_file(sources, path, without_password(address))


def _live_name(address: str) -> str:
    return name_of_address(address).replace('.', '_')


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMG_EXTENSIONS


def _split(paths: Iterable[Path], wanted: Callable[[Path], bool]) -> tuple[list[Path], list[Path]]:
    """Sorts paths, and divides them into files that are wanted and the rest."""
    ordered = sorted(paths)
    chosen = {path for path in ordered if wanted(path) and not path.is_dir()}
    return [path for path in ordered if path in chosen], [path for path in ordered if path not in chosen]
