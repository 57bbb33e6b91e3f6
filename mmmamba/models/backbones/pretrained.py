"""Pretrained weights for a backbone, all of them or none."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.parse import unquote, urlsplit

import torch
from mmengine.fileio import get_local_path
from mmengine.logging import print_log
from torch import Tensor

from mmmamba.convert import SYSTEMS, dropped, first_names, read_checkpoint, require_fit, system_of
from mmmamba.errors import InputError

if TYPE_CHECKING:
    from mmmamba.models.backbones.staged_backbone import StagedBackbone

_BACKBONE = 'backbone.'


def load_pretrained(backbone: StagedBackbone, checkpoint: str, prefix: str | None = None) -> None:
    """Loads a backbone's weights from a classifier or a detector, of this project or of a reference implementation.

    mmengine's own loading warns and goes on where weights fit in part only, and the numbers that follow are wrong.
    Here every parameter of the backbone has to be in the file, except for the norms of the outputs, which classifiers
    do not have; and everything in the file has to be known, except for stages that this backbone was not given. What
    is not used is logged.

    Args:
        backbone: It is changed only if everything fits.
        checkpoint: File of weights in the names of this project (``backbone.…`` or bare) or of its reference
            implementation, which are converted; or the file's address. What comes by HTTP is downloaded once, into
            PyTorch's folder of checkpoints. Nothing in the file is run.
        prefix: Take the keys that begin so. None: ``backbone.`` if some key does, else all.

    Raises:
        InputError: No such file, no such keys, or the weights of something else; it names the first of each side.
    """
    weights = _read(checkpoint)
    system = system_of(weights)
    unused: list[str] = []
    if system in SYSTEMS:
        unused += dropped(weights, system)
        weights = SYSTEMS[system](weights)
    if prefix is None:
        prefix = _BACKBONE if any(key.startswith(_BACKBONE) for key in weights) else ''
    unused += [key for key in weights if not key.startswith(prefix)]
    weights = {key[len(prefix):]: value for key, value in weights.items() if key.startswith(prefix)}

    absent = tuple(f'{name}.' for name in backbone.absent_modules())
    unused += [prefix + key for key in weights if key.startswith(absent)]
    weights = {key: value for key, value in weights.items() if not key.startswith(absent)}
    own = backbone.state_dict()
    fresh = {key for key in own if key.startswith('out_norms.')}
    if fresh & weights.keys():
        fresh = set()
    require_fit({key: value for key, value in own.items() if key not in fresh}, weights,
                f'{checkpoint} does not fit this {type(backbone).__name__}')
    backbone.load_state_dict(weights, strict=False)
    print_log(f'{checkpoint}: {len(weights)} tensors for {type(backbone).__name__}'
              + (f'; {len(unused)} not used: {first_names(unused)}' if unused else '')
              + ('; the norms of the outputs start anew' if fresh else ''), logger='current')


def _read(checkpoint: str) -> dict[str, Tensor]:
    if checkpoint.startswith(('http://', 'https://')):
        return read_checkpoint(_downloaded(checkpoint)).state_dict
    with get_local_path(checkpoint) as path:  # also of the other storages that mmengine knows
        return read_checkpoint(path).state_dict


def _downloaded(address: str) -> Path:
    """The file of an address, which appears whole or not at all: several processes may ask for it at once."""
    path = Path(torch.hub.get_dir(), 'checkpoints', Path(unquote(urlsplit(address).path)).name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(address, str(path))
        except (URLError, OSError) as error:
            raise InputError(f'cannot download {address}: {error}') from error
    return path
