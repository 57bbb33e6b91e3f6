"""Loading weights with the questions asked first: is this a checkpoint, and is it one of this model?"""
from __future__ import annotations

from pathlib import Path

from torch import nn

from mmmamba.convert import read_checkpoint, require_fit
from mmmamba.errors import InputError


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """Finds the checkpoint that training saved last.

    Args:
        work_dir: Of the training; it may have been moved since.

    Returns:
        The file, or None if nothing has been saved yet.

    Raises:
        InputError: What was saved last has been deleted.
    """
    record = Path(work_dir, 'last_checkpoint')
    if not record.is_file():
        return None
    saved = Path(record.read_text(encoding='utf-8').strip())
    for path in (record.with_name(saved.name), saved):
        if path.is_file():
            return path
    raise InputError(f'{record} names {saved}, which is not there: name another with --resume CHECKPOINT, or delete '
                     f'{record} to start from the beginning')


def load_checkpoint_checked(model: nn.Module, path: str) -> dict:
    """Loads weights into a model, all of them or none.

    mmengine warns and goes on when a checkpoint fits a model only in part, and the numbers that follow are wrong.

    Args:
        model: The model (not a DDP wrapper), on any device; it is changed only if everything fits.
        path: A file of mmengine's (``state_dict``, which holds the averaged weights where EMA was on), or a bare state
            dict. Nothing in it is imported or executed.

    Returns:
        The checkpoint's ``meta`` (classes of the data set, epoch, config …), empty where it has none.

    Raises:
        InputError: No such file, not a checkpoint, or the weights of another architecture or class list.
    """
    checkpoint = read_checkpoint(path)
    weights = {name.removeprefix('module.'): value for name, value in checkpoint.state_dict.items()}
    require_fit(model.state_dict(), weights, f'{path} does not fit this {type(model).__name__}')
    model.load_state_dict(weights)
    return checkpoint.meta
