"""Several runs at a time, each on a device of its own."""
from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import torch

from mmmamba.comparison.run import Launch, Run

SRUN = ('--job-name=compare', '--ntasks=1', '--gres=gpu:1', '--kill-on-bad-exit=1')


def launches(tools: Path, jobs: int, partition: str | None) -> list[Launch]:
    """As many places to run in as ``jobs`` says.

    Each is a GPU or, without GPUs, a share of the CPU's threads (``OMP_NUM_THREADS``, where that is not set already).

    Args:
        tools: The folder of train.py and test.py.
        jobs: Places; with fewer GPUs than that, some share one.
        partition: Of a Slurm cluster, which assigns the GPUs itself; None without one. ``CPUS_PER_TASK`` and
            ``SRUN_ARGS`` are taken as ``tools/slurm_train.sh`` takes them.
    """
    if partition:
        cpus, more = os.environ.get('CPUS_PER_TASK', '5'), os.environ.get('SRUN_ARGS', '').split()
        return [Launch(tools, ('srun', f'--partition={partition}', f'--cpus-per-task={cpus}', *SRUN, *more))] * jobs
    gpus = torch.cuda.device_count()
    if gpus:
        visible = os.environ.get('CUDA_VISIBLE_DEVICES')
        names = visible.split(',') if visible else [str(index) for index in range(gpus)]
        return [Launch(tools, environment={'CUDA_VISIBLE_DEVICES': names[job % gpus]}) for job in range(jobs)]
    threads = os.environ.get('OMP_NUM_THREADS') or str(max(torch.get_num_threads() // jobs, 1))
    return [Launch(tools, environment={'OMP_NUM_THREADS': threads})] * jobs


def execute_all(runs: Sequence[Run], places: Sequence[Launch], ended: Callable[[Run, float], None]) -> None:
    """Executes runs in their order, as many at a time as there are places; one that fails does not stop the others.

    Args:
        runs: Those to execute.
        places: See :func:`launches`.
        ended: Called with each run that ended, and the minutes that it took.
    """
    free: SimpleQueue[Launch] = SimpleQueue()
    for place in places:
        free.put(place)

    def execute(run: Run) -> None:
        place, start = free.get(), time.monotonic()
        try:
            run.execute(place)
        finally:
            free.put(place)
        ended(run, (time.monotonic() - start) / 60)

    with ThreadPoolExecutor(len(places)) as pool:
        try:
            for future in [pool.submit(execute, run) for run in runs]:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # what runs ends, or was interrupted as well
            raise
