"""The Triton kernels' scan, registered with PyTorch as ``mmmamba::triton_scan``."""
from __future__ import annotations

import os
from importlib.util import find_spec

from mmmamba.ops import fused_scan
from mmmamba.ops.triton import scan

# Found at import, because torch.compile traces what a backend is asked. Triton reads its variable just so.
INSTALLED = find_spec('triton') is not None
INTERPRETED = os.environ.get('TRITON_INTERPRET', '').lower() in ('1', 'true', 'yes', 'on', 'y')
DEVICES = ('cpu',) if INTERPRETED else ('cuda',)

triton_scan = fused_scan.register('triton_scan', scan.forward, scan.backward, scan.states_size)


def unavailable() -> str | None:
    """Returns why the kernels cannot run here, or None if they can."""
    return None if INSTALLED else 'Triton is not installed.'
