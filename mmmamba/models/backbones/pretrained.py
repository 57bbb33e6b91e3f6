"""Pretrained weights for a backbone, all of them or none."""
from __future__ import annotations

from typing import TYPE_CHECKING

from mmengine.fileio import get_local_path
from mmengine.logging import print_log

from mmmamba.convert import SYSTEMS, dropped, first_names, read_checkpoint, require_fit, system_of

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
        checkpoint: File, or address that mmengine's file clients know, of weights in the names of this project
            (``backbone.…`` or bare) or of its reference implementation, which are converted. Nothing in it is run.
        prefix: Take the keys that begin so. None: ``backbone.`` if some key does, else all.

    Raises:
        InputError: No such file, no such keys, or the weights of something else; it names the first of each side.
    """
    with get_local_path(checkpoint) as path:
        weights = read_checkpoint(path).state_dict
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
