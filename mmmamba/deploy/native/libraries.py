"""Where the libraries are that run exported scans in other runtimes, or why there is none.

It needs the standard library alone: a process without PyTorch may load this file by its path.
"""
from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
ONNXRUNTIME = 'libmmmamba_onnxruntime.so'
OPENVINO = 'libmmmamba_openvino.so'
OPENVINO_VERSION = 'openvino_version.txt'  # beside the library: it works with the release that it was built for
BUILD_LOG = 'build_log.txt'
BUILD_COMMAND = 'python -m mmmamba.deploy.native.build'


class Library(NamedTuple):
    """The path of a library, or the reason why there is none."""

    path: Path | None
    reason: str | None = None


def onnxruntime_library() -> Library:
    """Returns the library for ``SessionOptions.register_custom_ops_library``; an installation builds it."""
    path, log = FOLDER / ONNXRUNTIME, FOLDER / BUILD_LOG
    if path.is_file():
        return Library(path)
    reason = log.read_text(encoding='utf-8').strip() if log.is_file() else 'it was never built'
    return Library(None, f'The library for ONNX Runtime was not built: {reason}.')


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
