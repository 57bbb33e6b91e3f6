"""What one pass of a detector costs at one size; run in a process of its own by :mod:`mmmamba.analysis.scaling`.

The passes, on one random image with random weights:

- ``forward``: the network in eval mode without gradients: backbone, neck and heads, without the decoding and
  suppression of boxes, whose cost depends on how many objects the weights see. Detectors of the R-CNN family run as
  their FLOPs are counted: heads on 1000 boxes and 100 masks, without RoIAlign.
- ``training``: loss on a handful of random boxes, backward pass, a step of plain SGD.

``float16`` and ``bfloat16`` are autocast's, the weights staying in float32.
"""
from __future__ import annotations

import ctypes
import json
import re
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import PolygonMasks
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmmamba.analysis.detector import build_detector, count_detector, empty_sample, forward_network
from mmmamba.analysis.measure import MIB, Effort, PeakMemory, failure_line, interleaved, limit_memory
from mmmamba.deploy.fused_layers import fuse_layers

DTYPES = ('float32', 'float16', 'bfloat16')
PASSES = ('forward', 'training')
FAMILIARISATION_SIDE = 224
"""Pixels. A pass on so small an image (or on the measured side, if that is smaller) goes before, so that what
libraries make once is no part of the measured memory. On less, DINO has fewer tokens than queries."""
MEMORY_PASSES = 2
BOXES = 8
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|out of memory|not enough memory|bad_alloc|CU\w+_STATUS_ALLOC_FAILED"
    # oneDNN's; it also has no descriptor of a primitive, but where none is implemented.
    r'|could not create a (memory|primitive(?! descriptor))')


@dataclass(frozen=True)
class Task:
    """What to measure.

    Attributes:
        config: File of the detector's config.
        side: Of the square image, in pixels.
        dtype: One of ``DTYPES``.
        pass_: One of ``PASSES``.
        device: ``cpu`` or ``cuda``.
        threads: Of PyTorch, on the CPU.
        runs: Passes that are timed, two or more.
        memory_limit: Bytes above which the task does not fit; None: as many as there are.
    """

    config: str
    side: int
    dtype: str = 'float32'
    pass_: str = 'forward'
    device: str = 'cpu'
    threads: int = 1
    runs: int = 5
    memory_limit: int | None = None


def measure(task: Task) -> dict[str, Any]:
    """Runs a task in this process.

    Returns:
        ``memory_mib``: the peak of the passes above what was there before the first: weights, in training their
        gradients, and the image. ``total_mib``: the peak itself. ``median_ms``, ``p20_ms``, ``p80_ms``: time of a
        pass. ``images_per_s``. ``parameters``. ``linear_gflops``, ``scan_gflops``: of a forward pass, see
        :class:`mmmamba.analysis.Cost`.
    """
    device = torch.device(task.device)
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    np.random.seed(0)
    if task.memory_limit is not None:
        limit_memory(task.memory_limit, device)
    memory = PeakMemory(device)
    detector = build_detector(task.config).to(device)
    cast = partial(torch.autocast, task.device, getattr(torch, task.dtype), enabled=task.dtype != 'float32')
    make_pass = partial(_training_pass if task.pass_ == 'training' else _forward_pass, detector, cast=cast)

    familiar = make_pass(*random_batch(min(task.side, FAMILIARISATION_SIDE), device))
    familiar()
    del familiar  # with its image
    one_pass = make_pass(*random_batch(task.side, device))
    memory.start()
    for _ in range(MEMORY_PASSES):
        one_pass()
    above, total = memory.stop()

    # One more pass goes before: on the CPU, memory is now kept that was returned before.
    timing = interleaved({'pass': one_pass}, device, Effort.rounds(task.runs), warm_up=1)['pass']
    detector.zero_grad()
    with cast():
        cost = count_detector(detector, task.side, task.side).total
    values = dict(memory_mib=above / MIB, total_mib=total / MIB, images_per_s=1e3 / timing.median,
                  linear_gflops=cost.linear_flops / 1e9, scan_gflops=cost.scan_flops / 1e9)
    rounded = {name: round(value, 6) for name, value in values.items()}
    return {**rounded, **timing.columns(), 'parameters': cost.parameters}


def random_batch(side: int, device: torch.device) -> tuple[Tensor, list[DetDataSample]]:
    """Makes an image (1, 3, side, side) and its sample, with boxes of a tenth to a half of the side, and their masks.

    The boxes have label 0, which every detector has.
    """
    sample = empty_sample(side, side)
    corners, extents = side * 0.5 * torch.rand(BOXES, 2), side * (0.1 + 0.4 * torch.rand(BOXES, 2))
    boxes = torch.cat([corners, corners + extents], dim=1)
    outlines = [[box[[0, 1, 2, 1, 2, 3, 0, 3]]] for box in boxes.numpy()]
    sample.gt_instances = InstanceData(
        bboxes=boxes.to(device), labels=torch.zeros(BOXES, dtype=torch.long, device=device),
        masks=PolygonMasks(outlines, side, side))
    return torch.rand(1, 3, side, side, device=device), [sample]


def _forward_pass(detector: nn.Module, image: Tensor, samples: list[DetDataSample],
                  cast: Callable[[], AbstractContextManager]) -> Callable[[], None]:
    detector.eval()
    if image.device.type == 'cpu':
        fuse_layers(detector)  # as validation and test.py do

    def run() -> None:
        with torch.no_grad(), cast():
            forward_network(detector, image, samples)

    return run


def _training_pass(detector: Any, image: Tensor, samples: list[DetDataSample],
                   cast: Callable[[], AbstractContextManager]) -> Callable[[], None]:
    detector.train()
    # So slow that many steps on one image leave weights as they are from the start.
    optimizer = torch.optim.SGD([weight for weight in detector.parameters() if weight.requires_grad], lr=1e-9)

    def run() -> None:
        # Gradients stay where they are, so that they are there before the measured passes: they depend on no size.
        optimizer.zero_grad(set_to_none=False)
        with cast():
            loss, _ = detector.parse_losses(detector.loss(image, samples))
        loss.backward()
        optimizer.step()

    return run


def failure_of(error: Exception) -> dict[str, Any]:
    """Tells what ended a task: one line as ``failure``, and as ``fits`` whether the size was not the reason."""
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
        return dict(failure='out of memory', fits=False)
    return dict(failure=failure_line(error), fits=True)


def encoded(task: Task) -> str:
    """Returns the argument of this module's command line."""
    return json.dumps(asdict(task))


def end_with_parent() -> None:
    """Has Linux end this process when the one that started it ends, however that may be."""
    if prctl := getattr(ctypes.CDLL(None), 'prctl', None):
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    end_with_parent()
    task = Task(**json.loads(sys.argv[1]))
    try:
        result = measure(task)
    except Exception as error:  # whatever it is, it becomes a row
        result = failure_of(error)
    print(json.dumps(result))


if __name__ == '__main__':
    main()
