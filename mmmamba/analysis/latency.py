"""How long a detector takes for one image."""
from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from mmmamba.analysis.sample import empty_sample
from mmmamba.analysis.two_stage import forward_network

WARM_UP = 2
"""Runs that are not timed: libraries choose their algorithms, and Triton compiles, in the first."""


class Latency(NamedTuple):
    """Percentiles of some runs, in milliseconds."""

    p20: float
    median: float
    p80: float


@torch.no_grad()
def measure_latency(detector: nn.Module, height: int, width: int, runs: int) -> Latency:
    """Time of the network on one random image: backbone, neck and heads, without decoding and NMS.

    Those of the R-CNN family run as :func:`mmmamba.analysis.count_detector` counts them: heads on 1000 boxes and 100
    masks, without RoIAlign.

    Args:
        detector: Any of mmdet's, on the device (a CPU or CUDA) on which it is to run, in evaluation mode.
        height: In pixels.
        width: In pixels.
        runs: Timed ones.
    """
    device = next(detector.parameters()).device
    image, sample = torch.rand(1, 3, height, width, device=device), empty_sample(height, width)
    run = partial(forward_network, detector, image, [sample])
    times = [milliseconds(run, device) for _ in range(WARM_UP + runs)]
    return Latency(*map(float, np.percentile(times[WARM_UP:], (20, 50, 80))))


def milliseconds(run: Callable[[], None], device: torch.device) -> float:
    """Wall clock of a call, with all that it has the device do."""
    start = time.perf_counter()
    run()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - start)
