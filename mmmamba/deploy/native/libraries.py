"""Where the library is that runs exported scans in OpenVINO, or why there is none."""
from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
OPENVINO = 'libmmmamba_openvino.so'
OPENVINO_VERSION = 'openvino_version.txt'  # beside the library: it works with the release that it was built for
BUILD_COMMAND = 'python -m mmmamba.deploy.native.build'


class Library(NamedTuple):
    """The path of the library, or the reason why there is none."""

    path: Path | None
    reason: str | None = None


def openvino_library() -> Library:
    """Returns the library for ``openvino.Core.add_extension``; ``BUILD_COMMAND`` builds it."""
    path, built_for = FOLDER / OPENVINO, FOLDER / OPENVINO_VERSION
    if not path.is_file() or not built_for.is_file():
        return Library(None, f'The library for OpenVINO was not built; {BUILD_COMMAND} builds it.')
    wanted = built_for.read_text(encoding='utf-8').strip()
    try:
        found = version('openvino')
    except PackageNotFoundError:
        return Library(None, 'OpenVINO is not installed.')
    if found != wanted:
        return Library(None, f'The library was built for OpenVINO {wanted}, not {found}; {BUILD_COMMAND} builds it.')
    return Library(path)
