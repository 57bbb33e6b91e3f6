"""``python -m mmmamba.ops.info``: which backends run on this machine, and why the others do not."""
from __future__ import annotations

import torch

from mmmamba.ops.cpu import native
from mmmamba.ops.dispatch import Backend
from mmmamba.ops.inverted_bottleneck.backends import BACKENDS as INVERTED_BOTTLENECK
from mmmamba.ops.pointwise_conv.backends import BACKENDS as POINTWISE_CONV
from mmmamba.ops.selective_scan.backends import BACKENDS as SELECTIVE_SCAN
from mmmamba.ops.ss2d_scan.backends import BACKENDS as SS2D_SCAN

OPS = {
    'selective_scan': SELECTIVE_SCAN,
    'ss2d_scan': SS2D_SCAN,
    'pointwise_conv': POINTWISE_CONV,
    'inverted_bottleneck': INVERTED_BOTTLENECK,
}


def describe() -> str:
    """Returns one line for each backend of each op, in the order in which the op would choose them."""
    lines = [f'PyTorch {torch.__version__}, {torch.get_num_threads()} threads']
    for op, backends in OPS.items():
        lines.append(op)
        lines += [f'  {backend.name:<10} {_status(backend)}' for backend in backends]
    if native.unavailable() is None:
        threads = 'OpenMP' if native.has_threads() else 'one thread (built without OpenMP)'
        lines.append(f'native library: {", ".join(native.available_isas())}; {threads}')
    return '\n'.join(lines)


def _status(backend: Backend) -> str:
    reason = backend.unavailable()
    if reason is not None:
        return f'not available: {reason}'
    devices = 'any device' if backend.devices is None else ', '.join(backend.devices)
    return f'available on {devices}; takes {", ".join(str(dtype)[6:] for dtype in backend.tolerances)}'


if __name__ == '__main__':
    print(describe())
