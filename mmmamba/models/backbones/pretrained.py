"""Pretrained weights for a backbone, all of them or none."""
from __future__ import annotations

import re
from collections.abc import Sequence
from types import MappingProxyType

from mmengine.logging import print_log
from torch import nn

from mmmamba.convert import SYSTEMS, dropped, read_checkpoint, require_fit, system_of
from mmmamba.convert.backbone import BACKBONE, split
from mmmamba.convert.key_map import without_wrappers
from mmmamba.downloads import local_file
from mmmamba.errors import InputError, first_names
from mmmamba.layers.vim import resize_bicubic

POSITIONS = 'stem.pos_embed'
"""The position embedding of a plain backbone, (1, d, rows, columns)."""
NOT_IN_CLASSIFIERS = MappingProxyType({
    'norms of the outputs': r'out_norms\.',
    'biases of the norms': r'blocks\.\d+\.norm\.bias$',  # LocalVim's classifiers have RMS norms, its detectors not
})
"""Parameters that classifiers do not have, and patterns of their names."""


def load_pretrained(backbone: nn.Module, checkpoint: str, prefix: str | None = None,
                    absent: Sequence[str] = ()) -> None:
    """Loads a backbone's weights from a classifier or a detector, of this project or of a reference implementation.

    mmengine's own loading warns and goes on where weights fit in part only, and the numbers that follow are wrong.
    Here every parameter of the backbone has to be in the file, except for those of :data:`NOT_IN_CLASSIFIERS`, if the
    file has none of a kind; and everything in the file has to be known, except for stages that this backbone was not
    given. What is not used is logged. A position embedding is resized to the backbone's grid.

    Args:
        backbone: It is changed only if everything fits.
        checkpoint: File of weights in the names of this project (``backbone.…`` or bare) or of its reference
            implementation, which are converted; or the file's HTTP address. It is then downloaded once, into PyTorch's
            folder of checkpoints. Nothing in the file is run.
        prefix: Take the keys that begin so, without it. None: ``backbone.`` if some key does, else all.
        absent: Names of modules that the weights may have and this backbone was not given.

    Raises:
        InputError: No such file, no such keys, or the weights of something else; it names the first of each side.
    """
    weights = read_checkpoint(local_file(checkpoint)).state_dict
    unused: list[str] = []
    if prefix is not None:
        weights, others = split(weights, prefix.rstrip('.') + '.')
        unused += others
        if not weights:
            raise InputError(f'{checkpoint}: no key begins with {prefix}; the first are {first_names(unused)}')
    system = system_of(weights)
    if system in SYSTEMS:
        unused += dropped(weights, system)
        weights = SYSTEMS[system](weights)
    else:
        weights = without_wrappers(weights)
    if any(key.startswith(BACKBONE) for key in weights):
        weights, others = split(weights, BACKBONE)
        unused += others

    left_out = tuple(f'{name}.' for name in absent)
    unused += [key for key in weights if key.startswith(left_out)]
    weights = {key: value for key, value in weights.items() if not key.startswith(left_out)}
    own = backbone.state_dict()
    resized = ''
    if POSITIONS in own and POSITIONS in weights and weights[POSITIONS].dim() == 4:
        grid, own_grid = (tuple(tensors[POSITIONS].shape[2:]) for tensors in (weights, own))
        weights[POSITIONS] = resize_bicubic(weights[POSITIONS], *own_grid)
        resized = '' if grid == own_grid else f'; its position embedding is resized from {grid} to {own_grid}'
    fresh: set[str] = set()
    notes = [resized]
    for what, pattern in NOT_IN_CLASSIFIERS.items():
        found = {key for key in own if re.match(pattern, key)}
        if found and not found & weights.keys():
            fresh |= found
            notes.append(f'; the {what} start anew')
    require_fit({key: value for key, value in own.items() if key not in fresh}, weights,
                f'{checkpoint} does not fit this {type(backbone).__name__}')
    backbone.load_state_dict(weights, strict=False)
    print_log(f'{checkpoint}: {len(weights)} tensors for {type(backbone).__name__}'
              + (f'; {len(unused)} not used: {first_names(unused)}' if unused else '')
              + ''.join(notes), logger='current')
