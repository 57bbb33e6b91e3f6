"""Processes that measure for another."""
from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with_parent() -> None:
    """Has Linux end this process when the one that started it ends, however that may be."""
    if prctl := getattr(ctypes.CDLL(None), 'prctl', None):
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
