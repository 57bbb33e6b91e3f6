"""Random states that are a function of what they are for, so that nothing depends on what ran before.

A run that was stopped and resumed then draws the very numbers that the uninterrupted run would have drawn.
"""
from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_everything(seed: int, *key: int) -> None:
    """Seeds Python's, NumPy's and PyTorch's (every device's) generators from ``seed`` and ``key``.

    Args:
        seed: The experiment's seed, not negative.
        *key: What the state is for, for example ``(epoch, rank)``; different keys give independent streams.
    """
    python_seed, numpy_seed, torch_seed = _derive(seed, key)
    random.seed(python_seed)
    np.random.seed(numpy_seed)
    torch.manual_seed(torch_seed)


@contextmanager
def seeded(seed: int, *key: int) -> Iterator[None]:
    """Seeds the CPU generators for the duration of a ``with`` block, and leaves the caller's states as they were."""
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    python_seed, numpy_seed, torch_seed = _derive(seed, key)
    random.seed(python_seed)
    np.random.seed(numpy_seed)
    # Only the CPU generator: torch.manual_seed would touch CUDA, which a forked data worker must not.
    torch.default_generator.manual_seed(torch_seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])


def _derive(seed: int, key: tuple[int, ...]) -> tuple[int, np.ndarray, int]:
    # spawn_key keeps keys of different lengths and orders apart, which summing or concatenating them would not.
    words = np.random.SeedSequence(seed, spawn_key=key).generate_state(6)
    return int(words[0]) << 32 | int(words[1]), words[2:4], int(words[4]) << 31 | int(words[5]) >> 1
