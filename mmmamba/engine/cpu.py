"""Training on a CPU: memory that is kept."""
from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # <malloc.h>


def keep_freed_memory() -> bool:
    """Has the C library keep large freed blocks for the next allocation, rather than return them to the system.

    By default glibc maps every block above some 32 MiB anew, and unmaps it when it is freed: each activation of each
    iteration is then paid for in page faults, which can take longer than computing it. Call it before the model is
    made; the process then keeps its peak of memory until it ends.

    Returns:
        Whether it could be set; False if the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
