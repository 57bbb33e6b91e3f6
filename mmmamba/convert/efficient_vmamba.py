"""EfficientVMamba's reference names to ours."""
from __future__ import annotations

import re

from mmmamba.convert.backbone import OUT_NORMS, rename_backbone
from mmmamba.convert.key_map import SS2D, StateDict, repeated, under

_CONV_NORM = {'0': 'conv', '1': 'norm'}
_STEM = {'0': 'conv', '2': 'norm', 'proj': 'conv', 'norm': 'norm'}  # the last two as older checkpoints have them
_EVSS_BLOCK = {
    'norm': 'norm',
    'ln_1': 'norm',  # older
    **under('op', 'ss2d', SS2D),
    **under('self_attention', 'ss2d', SS2D),  # older
    'conv_branch.0': 'local.0.conv',
    'conv_branch.1': 'local.0.norm',
    'conv_branch.3': 'local.1',
    'se.norm': 'se.norm',
    'se.global_reduce': 'se.reduce',
    'se.channel_select': 'se.expand',
}
_INVERTED_RESIDUAL = {
    **under('conv_pw', 'expand', _CONV_NORM),
    **under('conv_dw', 'depthwise', _CONV_NORM),
    **under('conv_pw2', 'reduce', _CONV_NORM),
    'se.conv_reduce': 'se.reduce',
    'se.conv_expand': 'se.expand',
}
_MERGE = {'norm': 'norm', 'reduction': 'reduction'}
_NAMES = {
    **under('patch_embed', 'stem', _STEM),
    **repeated(4, 'layers.{}.blocks.#', 'stages.{}.#', _EVSS_BLOCK),
    **repeated(3, 'layers.{}.downsample', 'downsamples.{}', _MERGE),
    **OUT_NORMS,
}
# Blocks of stages 2 and 3 are numbered from 1 among layers without weights, and the merging after them by its place.
_MEMBER = re.compile(r'(?:.*\.)?layers\.([23])\.([1-9][0-9]*)\.')
_LINEAR = re.compile(r'.*\.(in_proj|out_proj|se\.reduce|se\.expand|reduction)\.weight')


def efficient_vmamba(state_dict: StateDict) -> StateDict:
    """Converts an EfficientVMamba classifier, or a detector of mmdet on one; the backbone is under ``backbone.``.

    Any size. Linear layers become 1x1 convolutions.

    Args:
        state_dict: Keys as ``layers.0.blocks.0.norm.weight``, also after ``backbone.``, ``module.`` or ``model.``.

    Raises:
        InputError: A state dict of something else.
    """
    names = dict(_NAMES)
    for stage, number in {match.groups() for match in map(_MEMBER.match, state_dict) if match}:
        names.update(under(f'layers.{stage}.{number}', f'stages.{stage}.{int(number) - 1}', _INVERTED_RESIDUAL))
        names.update(under(f'layers.{stage}.{number}', f'downsamples.{stage}', _MERGE))
    renamed = rename_backbone(state_dict, names, 'efficient-vmamba')
    return {key: value[..., None, None] if _LINEAR.fullmatch(key) and value.ndim == 2 else value
            for key, value in renamed.items()}
