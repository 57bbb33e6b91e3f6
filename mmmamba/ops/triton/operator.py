"""The Triton kernels' scan, registered with PyTorch as ``mmmamba::triton_scan``."""
from __future__ import annotations

import os
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

from mmmamba.ops import fused_scan
from mmmamba.ops.triton import scan

OLDEST = (3, 6)  # that the kernels were compiled or made for


def _reason() -> str | None:
    if find_spec('triton') is None:
        return 'Triton is not installed.'
    with suppress(PackageNotFoundError):  # some builds go by another name, and these are recent
        if tuple(map(int, version('triton').split('.')[:2])) < OLDEST:
            return f'The kernels need Triton {OLDEST[0]}.{OLDEST[1]} or later, and this is {version("triton")}.'
    if torch.version.hip is not None:
        return 'The kernels are made for warps of 32 threads, which AMD GPUs do not all have.'
    return None


# Found at import, because torch.compile traces what a backend is asked. Triton reads its variable just so.
INTERPRETED = os.environ.get('TRITON_INTERPRET', '').lower() in ('1', 'true', 'yes', 'on', 'y')
REASON = _reason()
DEVICES = ('cpu',) if INTERPRETED else ('cuda',)

triton_scan = fused_scan.register('triton_scan', scan.forward, scan.backward, scan.states_size)


def unavailable() -> str | None:
    """Returns why the kernels cannot run here, or None if they can."""
    return REASON
