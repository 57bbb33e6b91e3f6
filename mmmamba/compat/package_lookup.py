"""Let mmengine find installed packages without ``pkg_resources``, which setuptools 82 dropped.

mmengine resolves ``_base_ = 'mmdet::...'`` of a config with two functions that import ``pkg_resources``. Where that is
missing, the two below take their place.
"""
from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import mmengine.config.config
import mmengine.hub.hub
import mmengine.utils.package_utils

HOLDERS = (mmengine.utils.package_utils, mmengine.utils, mmengine.config.config, mmengine.hub.hub)
"""Modules that define the functions or import them by name."""


def supply_package_lookup() -> None:
    """Replaces mmengine's package lookup if ``pkg_resources`` is missing."""
    if find_spec('pkg_resources') is not None:
        return
    for module in HOLDERS:
        for function in (is_installed, get_installed_path):
            if hasattr(module, function.__name__):
                setattr(module, function.__name__, function)


def is_installed(package: str) -> bool:
    """Returns whether a package, not a namespace, can be imported."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def get_installed_path(package: str) -> str:
    """Returns the folder of an importable package; the package is not imported.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f'{package} is not installed')
    return str(Path(spec.origin).parent)
