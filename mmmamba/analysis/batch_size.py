"""The largest batch that fits: training steps with growing batches, in a process that may run out of memory."""
from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from mmmamba.analysis.measure.memory import PeakMemory, available_memory
from mmmamba.errors import InputError

SHARE = 0.7
"""Of the memory that is free; the rest is for images with more objects, for data workers and for validation."""
_LARGEST = 1024


@dataclass(frozen=True)
class Fit:
    """What was measured.

    Args:
        images: The largest batch that fits.
        needed: Bytes at the peak of a training step with it.
        free: Bytes that were free before the model was made.
        where: ``'GPU memory'`` or ``'memory'``.
        most: Images of the data set.
    """
    images: int
    needed: int
    free: int
    where: str
    most: int

    def __str__(self) -> str:
        return (f'batches of {self.images} images: a training step needs {self.needed / 2**30:.1f} of '
                f'{self.free / 2**30:.1f} GiB of free {self.where}, of which {SHARE:.0%} may be used'
                + (f'; the data set has {self.most} images' if 2 * self.images > self.most else ''))


def largest_batch(cfg: Config, device: str, share: float = SHARE) -> Fit:
    """Finds the largest power of two of images whose training step fits into a share of the free memory.

    The config's model is trained for two steps, with the data set's first images under the config's augmentation, with
    1, 2, 4 … images, as long as twice as many can be expected to fit. On a GPU this measures what PyTorch reserves, on
    a CPU the resident memory of the process.

    Args:
        cfg: With a training data set and an optimizer.
        device: ``'cpu'``, ``'cuda'`` or ``'cuda:N'``.
        share: Of the free memory, between 0 and 1.

    Returns:
        The largest of them, at most the number of images.

    Raises:
        InputError: One image does not fit, or the step fails otherwise; the line says how.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'config.py')
        cfg.dump(path)
        child = subprocess.run([sys.executable, '-m', __name__, str(path), device, str(share)], capture_output=True,
                               text=True)
    records = [json.loads(line) for line in child.stdout.splitlines() if line.startswith('{"images"')]
    fitting = [Fit(**record) for record in records if record['needed'] <= share * record['free']]
    if fitting:
        return fitting[-1]
    if records:
        raise InputError(f'--batch-size auto: one image needs {records[0]["needed"] / 2**30:.1f} GiB, and '
                         f'{share:.0%} of the free {records[0]["where"]} are '
                         f'{share * records[0]["free"] / 2**30:.1f} GiB: choose a smaller --image-size')
    last = (child.stderr.strip().splitlines() or [f'it ended with status {child.returncode}'])[-1]
    raise InputError(f'--batch-size auto: no training step could be made: {last}')


def measure(path: str, device: str, share: float) -> None:
    """Prints a line of JSON for each batch that was trained, :class:`Fit`'s fields."""
    on = torch.device(device)
    if on.type == 'cuda':
        torch.cuda.set_device(on)
    cfg = Config.fromfile(path)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    free = torch.cuda.mem_get_info(on)[0] if on.type == 'cuda' else available_memory()
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).to(on)  # as the runner does without other processes
    model.train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    samples: list[dict] = []
    before = 0
    for images in _doubling(len(dataset)):
        samples += [dataset[index] for index in range(len(samples), images)]
        memory = PeakMemory(on)
        memory.start()
        for _ in range(2):  # the second has the optimizer's state, too
            model.train_step(pseudo_collate(samples), wrapper)
        needed = torch.cuda.max_memory_reserved(on) if on.type == 'cuda' else memory.stop()[1]
        where = 'GPU memory' if on.type == 'cuda' else 'memory'
        print(json.dumps(dict(images=images, needed=needed, free=free, where=where, most=len(dataset))), flush=True)
        if needed + max(0, 2 * (needed - before) if before else needed) > share * free:
            return
        before = needed


def _doubling(most: int) -> Sequence[int]:
    return [1 << power for power in range(_LARGEST.bit_length()) if 1 << power <= min(most, _LARGEST)]


if __name__ == '__main__':
    try:
        measure(sys.argv[1], sys.argv[2], float(sys.argv[3]))
    except (InputError, RuntimeError) as error:  # the latter is what PyTorch says when memory is used up
        sys.exit(' '.join(str(error).split()))
