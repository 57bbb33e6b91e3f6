"""How long a detector takes for one image."""
from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from mmmamba.analysis.sample import empty_sample
from mmmamba.analysis.two_stage import forward_network

WARM_UP = 2
"""Runs that are not timed: libraries choose their algorithms, and Triton compiles, in the first."""


@torch.no_grad()
def median_latency(detector: nn.Module, height: int, width: int, runs: int) -> float:
    """Median milliseconds of the network on one random image: backbone, neck and heads, without decoding and NMS.

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
    return statistics.median(times[WARM_UP:])


def milliseconds(run: Callable[[], None], device: torch.device) -> float:
    """Wall clock of a call, with all that it has the device do."""
    start = time.perf_counter()
    run()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - start)
