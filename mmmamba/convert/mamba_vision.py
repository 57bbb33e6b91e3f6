"""MambaVision's reference names to ours."""
from __future__ import annotations

import torch

from mmmamba.convert.backbone import OUT_NORMS, rename_backbone
from mmmamba.convert.key_map import StateDict, under
from mmmamba.errors import InputError

_SYSTEM = 'mamba-vision'
_STEM = {'0': 'conv1.conv', '1': 'conv1.norm', '3': 'conv2.conv', '4': 'conv2.norm'}
_CONV_BLOCK = {'conv1': 'conv1.conv', 'norm1': 'conv1.norm', 'conv2': 'conv2.conv', 'norm2': 'conv2.norm'}
_HALVES = ('conv_x.weight', 'conv_z.weight')
_WINDOW_BLOCK = {
    'norm1': 'norm1',
    'norm2': 'norm2',
    **under('mixer', 'mixer', {
        **{name: name for name in ('A_log', 'D', 'in_proj', 'x_proj', 'dt_proj', 'out_proj', 'qkv', 'proj')},
        'conv1d_x': 'conv_x',
        'conv1d_z': 'conv_z',
    }),
    'mlp.fc1': 'mlp.0',
    'mlp.fc2': 'mlp.2',
    'gamma_1': 'scale1',
    'gamma_2': 'scale2',
}
_NAMES = {
    **under('patch_embed.conv_down', 'stem', _STEM),
    **under('levels.0.blocks.#', 'stages.0.#', _CONV_BLOCK),
    **under('levels.1.blocks.#', 'stages.1.#', _CONV_BLOCK),
    **under('levels.2.blocks.#', 'stages.2.#', _WINDOW_BLOCK),
    **under('levels.3.blocks.#', 'stages.3.#', _WINDOW_BLOCK),
    **{f'levels.{stage}.downsample.reduction.0': f'downsamples.{stage}' for stage in range(3)},
    **OUT_NORMS,
}


def mamba_vision(state_dict: StateDict) -> StateDict:
    """Converts a MambaVision classifier, or a detector of mmdet's on one, for the backbone :class:`MambaVision`.

    Any size. The two convolutions of a mixer become one.

    Args:
        state_dict: Keys as ``patch_embed.conv_down.0.weight``, of a detector after ``backbone.``; also after
            ``module.`` or ``model.``.

    Raises:
        InputError: A state dict of something else.
    """
    return _join_halves(rename_backbone(state_dict, _NAMES, _SYSTEM))


def _join_halves(state_dict: StateDict) -> StateDict:
    """Joins a mixer's two convolutions of half the channels, (C/2, 1, 3), to one of all, (C, 1, 1, 3)."""
    joined: StateDict = {}
    for key, value in state_dict.items():
        if not key.endswith(_HALVES):
            joined[key] = value
            continue
        stem = key[:-len(_HALVES[0])]
        halves = [state_dict.get(stem + half) for half in _HALVES]
        if any(half is None for half in halves):
            raise InputError(f'no {_SYSTEM} state dict: it has only one of {" and ".join(_HALVES)}')
        joined[f'{stem}conv.weight'] = torch.cat(halves).unsqueeze(2)
    return joined
