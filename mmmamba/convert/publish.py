"""What others need of a training's checkpoint: weights, those of the EMA if there are some, and names of classes."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmmamba.convert.checkpoint import read_checkpoint, write_checkpoint
from mmmamba.errors import InputError
from mmmamba.version import __version__

KEPT = ('dataset_meta', 'epoch', 'iter')
"""Of what mmengine notes down in a checkpoint; its config names folders of the machine that trained."""


def publish(source: str | os.PathLike[str], target: str | os.PathLike[str], half: bool = False,
            **facts: Any) -> None:
    """Writes the weights of a training's checkpoint alone, for tests, predictions, export and fine-tuning.

    Of a training with EMA they are the averaged ones. The optimizer's state is left out, and what else a training
    needs to go on.

    Args:
        source: Checkpoint of a training, or weights of another kind that ``read_checkpoint`` takes.
        target: File to write, another one than ``source``.
        half: Whether arrays of two dimensions or more are written in float16, and are widened when they are loaded;
            vectors (biases, norms and their statistics), which are few, stay as they are. Magnitudes below 6e-8
            become zero.
        **facts: More that is noted down under ``meta``: the licence, say.

    Raises:
        InputError: A file cannot be read or written, both are the same, or a weight has no float16.
    """
    if Path(target).exists() and os.path.samefile(source, target):
        raise InputError(f'{os.fspath(target)} would replace the checkpoint itself; name another file')
    found = read_checkpoint(source)
    state_dict = dict(found.state_dict)
    if half:
        for name, tensor in state_dict.items():
            if tensor.is_floating_point() and tensor.dim() > 1:
                state_dict[name] = tensor.half()
                if not state_dict[name].isfinite().all():
                    raise InputError(f'{os.fspath(source)}: {name} has values that are too large for float16, or not '
                                     'finite')
    meta = {key: found.meta[key] for key in KEPT if _is_plain(found.meta.get(key))}
    write_checkpoint(target, state_dict, {**meta, 'mmmamba_version': __version__, **facts})


def _is_plain(value: Any) -> bool:
    """Tells whether a value is there and consists of text, numbers and containers alone."""
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, (str, int, float))
