import pytest
import torch

from mmmamba.ops.scan.ss2d_scan import BACKENDS
from mmmamba.ops.triton import scan
from mmmamba.ops.triton.tiling import Tiling


@pytest.fixture(autouse=True)
def poisoned(poisoned_memory):
    """Poisons memory in all tests of this folder."""


@pytest.fixture
def requires():
    """Skips a test of a named backend where it cannot run at all."""

    def check(name: str) -> None:
        backend = next(backend for backend in BACKENDS if backend.name == name)
        reasons = backend.unsupported_reasons([torch.zeros(1)])
        if reasons:
            pytest.skip(' '.join(reasons))

    return check


@pytest.fixture
def small_tiling(monkeypatch):
    """Cuts the Triton kernels' work small: their interpreter takes its time for every element of a tile."""
    small = Tiling(chunk=8, tile=4, block=8, carry_rows=2, programs=8)
    monkeypatch.setattr(scan, 'choose_tiling', lambda geometry, multiprocessors, keep: small)
