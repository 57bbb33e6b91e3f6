"""``python -m mmmamba.ops.info``: which backends run on this machine, and why the others do not."""
from __future__ import annotations

import torch

from mmmamba.ops.cpu import native
from mmmamba.ops.dispatch import Backend
from mmmamba.ops.scan.selective_scan import BACKENDS as SELECTIVE_SCAN
from mmmamba.ops.scan.ss2d_scan import BACKENDS as SS2D_SCAN

OPS = {'selective_scan': SELECTIVE_SCAN, 'ss2d_scan': SS2D_SCAN}


def describe() -> str:
    """Returns one line for each backend of each op, in the order in which the op would choose them."""
    lines = [f'PyTorch {torch.__version__}, {torch.get_num_threads()} threads']
    for op, backends in OPS.items():
        lines.append(op)
        lines += [f'  {backend.name:<10} {_status(backend)}' for backend in backends]
    if native.unavailable() is None:
        threads = 'OpenMP' if native.NATIVE.openmp else 'one thread (built without OpenMP)'
        lines.append(f'native library: {", ".join(native.available_isas())}; {threads}')
    return '\n'.join(lines)


def _status(backend: Backend) -> str:
    reason = None if backend.unavailable is None else backend.unavailable()
    if reason is not None:
        return f'not available: {reason}'
    devices = 'any device' if backend.devices is None else ', '.join(backend.devices)
    return f'available on {devices}; takes {", ".join(str(dtype)[6:] for dtype in backend.dtypes)}'


if __name__ == '__main__':
    print(describe())
