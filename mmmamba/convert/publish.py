"""What others need of a training's checkpoint: the averaged weights and the names of the classes."""
from __future__ import annotations

import os
from typing import Any

import torch

from mmmamba.convert.checkpoint import read_checkpoint, write_checkpoint
from mmmamba.errors import InputError
from mmmamba.version import __version__

KEPT = ('dataset_meta', 'epoch')
"""Of what mmengine notes down in a checkpoint; its config names folders of the machine that trained."""


def publish(source: str | os.PathLike[str], target: str | os.PathLike[str], half: bool = False,
            **facts: Any) -> None:
    """Writes the weights of a training's checkpoint alone, for tests, predictions, export and fine-tuning.

    The optimizer's state, which is twice as large as the weights, and the weights without averaging are left out.

    Args:
        source: Checkpoint of a training, or weights of another kind that ``read_checkpoint`` takes.
        target: File to write.
        half: Whether matrices and convolutions are written in float16, and are widened when they are loaded; biases,
            norms and their statistics, which are few, stay in float32.
        **facts: More that is noted down under ``meta``: the licence, say.

    Raises:
        InputError: A file cannot be read or written, or a weight is too large for float16.
    """
    found = read_checkpoint(source)
    state_dict = dict(found.state_dict)
    if half:
        for name, tensor in state_dict.items():
            if tensor.is_floating_point() and tensor.dim() > 1:
                state_dict[name] = tensor.half()
                if not torch.equal(state_dict[name].isfinite(), tensor.isfinite()):
                    raise InputError(f'{os.fspath(source)}: {name} has values that float16 has not, of up to '
                                     f'{tensor.abs().max():g}')
    meta = {key: found.meta[key] for key in KEPT if key in found.meta}
    write_checkpoint(target, state_dict, {**meta, 'mmmamba_version': __version__, **facts})
