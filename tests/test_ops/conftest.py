import os

os.environ.setdefault('TRITON_INTERPRET', '1')  # before any kernel is defined: they run on tensors of the CPU

import pytest  # noqa: E402
import torch  # noqa: E402

from mmmamba.ops.cpu import native  # noqa: E402


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fills what torch.empty returns with NaN, so that an element that a backend forgot to write is seen.

    PyTorch does this where only deterministic algorithms are allowed, which is also what the scans promise.
    """
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory and torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def requires():
    """Skips a test of a named backend where it cannot run at all."""

    def check(backend: str) -> None:
        if backend == 'cpu' and native.unavailable() is not None:
            pytest.skip(native.unavailable())

    return check
