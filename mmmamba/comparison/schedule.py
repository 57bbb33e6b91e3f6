"""Several runs at a time, each on a device of its own."""
from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import torch

from mmmamba.comparison.run import Run


def devices(jobs: int, on_cluster: bool) -> list[dict[str, str]]:
    """Environment variables of each of ``jobs`` places: its GPU or, without GPUs, its share of the CPU's threads.

    On a cluster, whose launcher assigns devices, there is nothing to set.
    """
    if on_cluster:
        return [{}] * jobs
    gpus = torch.cuda.device_count()
    if gpus:
        visible = os.environ.get('CUDA_VISIBLE_DEVICES')
        names = visible.split(',') if visible else [str(index) for index in range(gpus)]
        return [{'CUDA_VISIBLE_DEVICES': names[index % gpus]} for index in range(jobs)]
    threads = os.environ.get('OMP_NUM_THREADS') or str(max(torch.get_num_threads() // jobs, 1))
    return [{'OMP_NUM_THREADS': threads}] * jobs


def execute_all(runs: Sequence[Run], places: Sequence[dict[str, str]], tools: Path, prefix: Sequence[str],
                report: Callable[[Run, float], None]) -> None:
    """Executes runs in their order, as many at a time as there are places; one that fails does not stop the others.

    Args:
        runs: Those to execute.
        places: See :func:`devices`.
        tools: The folder of train.py and test.py.
        prefix: See :meth:`Run.execute`.
        report: Called with each run that ended, and the minutes that it took.
    """
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    for place in places:
        free.put(place)

    def execute(run: Run) -> None:
        place, start = free.get(), time.monotonic()
        try:
            run.execute(tools, prefix, place)
        finally:
            free.put(place)
        report(run, (time.monotonic() - start) / 60)

    with ThreadPoolExecutor(len(places)) as pool:
        try:
            for future in [pool.submit(execute, run) for run in runs]:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
