"""Where a detector was measured: what :mod:`mmmamba.environment` says, and OpenMMLab's versions."""
from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

import mmcv
import mmdet

from mmmamba import environment

ENVIRONMENT = (*environment.ENVIRONMENT, 'mmdet', 'mmcv')


def detector_environment(device: str, threads: int) -> Mapping[str, str]:
    """By the names in ``ENVIRONMENT``: device, threads, versions.

    mmcv's says whether its operators are compiled (``full``) or, on GPUs too, in plain PyTorch (``lite``).

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Of PyTorch, on the CPU.
    """
    compiled = import_module('mmcv._ext').__spec__.loader is not None  # what stands for it has none
    operators = f'{mmcv.__version__} {"full" if compiled else "lite"}'
    general = environment.environment(device, threads)
    return MappingProxyType({**general, 'mmdet': mmdet.__version__, 'mmcv': operators})
