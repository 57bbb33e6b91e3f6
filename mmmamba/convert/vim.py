"""Vim's reference names to ours: classifiers, and detectors of Detectron2."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from mmmamba.convert.backbone import BACKBONE, dropped, split
from mmmamba.convert.key_map import Names, StateDict, rename, repeated, under, without_wrappers
from mmmamba.errors import InputError

CASCADE_STAGES = 3
_MASK_HEAD = 'roi_head.mask_head.0.'


def scan_names(ours: str, suffix: str) -> Names:
    """Returns the table of one scan of a mixer, our module ``ours``, whose reference names end in ``suffix``."""
    return {
        f'conv1d{suffix}': f'{ours}.conv',
        f'x_proj{suffix}': f'{ours}.x_proj',
        f'dt_proj{suffix}.bias': f'{ours}.dt_bias',
        f'dt_proj{suffix}': f'{ours}.dt_proj',
    }


def _with_norm(reference: str, ours: str, norm: str = 'norm') -> Names:
    """Returns the table of a convolution, which has its norm inside of it in Detectron2, and next to it here."""
    return {reference: f'{ours}.conv', f'{reference}.norm': f'{ours}.{norm}'}


def _pyramid(level: int, upsampling: str, convolutions: str) -> Names:
    """Returns the table of a level of the pyramid, whose modules have the same numbers here."""
    names = {number: number for number in upsampling}
    for number in convolutions:
        names.update(_with_norm(number, number))
    return under(f'simfp_{level + 2}', f'neck.levels.{level}', names)


_BLOCK = {
    'norm': 'norm',
    **under('mixer', 'mixer', {
        'in_proj': 'in_proj',
        'out_proj': 'out_proj',
        **scan_names('ahead', ''),
        **scan_names('back', '_b'),
        'A_log': 'ahead.A_log',
        'D': 'ahead.D',
        'A_b_log': 'back.A_log',
        'D_b': 'back.D',
    }),
}
_RPN = {'conv.conv#': 'rpn_conv.#.conv', 'objectness_logits': 'rpn_cls', 'anchor_deltas': 'rpn_reg'}
_BOX_HEAD, _MASKS = {'fc1': 'shared_fcs.0'}, {'deconv': 'upsample', 'predictor': 'conv_logits'}
for _number in range(4):
    _BOX_HEAD.update(_with_norm(f'conv{_number + 1}', f'shared_convs.{_number}', 'ln'))
    _MASKS.update(_with_norm(f'mask_fcn{_number + 1}', f'convs.{_number}', 'ln'))
_NAMES = {
    'pos_embed': 'backbone.stem.pos_embed',
    'patch_embed.proj': 'backbone.stem.proj',
    **under('layers.#', 'backbone.blocks.#', _BLOCK),
    **_pyramid(0, '013', '45'),
    **_pyramid(1, '0', '12'),
    **_pyramid(2, '', '01'),
    **_pyramid(3, '', '12'),
    **under('proposal_generator.rpn_head', 'rpn_head', _RPN),
    **repeated(CASCADE_STAGES, 'roi_heads.box_head.{}', 'roi_head.bbox_head.{}', _BOX_HEAD),
    **repeated(CASCADE_STAGES, 'roi_heads.box_predictor.{}', 'roi_head.bbox_head.{}',
               {'cls_score': 'fc_cls', 'bbox_pred': 'fc_reg'}),
    **under('roi_heads.mask_head', _MASK_HEAD[:-1], _MASKS),
}


def vim(state_dict: StateDict) -> StateDict:
    """Converts a Vim classifier, or Detectron2's Cascade Mask R-CNN on Vim, for ours.

    Any size. The position embedding becomes a map of its square grid, without the row of the class token in the middle
    of a classifier's sequence. The reference's cascade has one mask head, mmdet's one for each stage, whose masks it
    averages: each gets the weights of the one.

    Args:
        state_dict: Keys as ``layers.0.mixer.in_proj.weight``, of a detector after ``backbone.net.``; also after
            ``module.`` or ``model.``.

    Raises:
        InputError: A state dict of something else, or a position embedding of no square grid.
    """
    net, others = split(without_wrappers(state_dict), f'{BACKBONE}net.')
    pyramid, heads = split(others, BACKBONE)
    bare = {**net, **pyramid, **heads}
    if len(bare) < len(state_dict):
        raise InputError('ambiguous state dict: it has some tensors both with a prefix and without')
    unused = dropped(bare, 'vim')
    converted = {}
    for key, value in rename({key: bare[key] for key in bare if key not in unused}, _NAMES, 'vim').items():
        if key.endswith('.stem.pos_embed'):
            value = grid_of_positions(value, class_token='cls_token' in bare)
        elif key.endswith('.conv.weight') and value.dim() == 3:
            value = value.unsqueeze(2)  # ours are convolutions of maps of one row
        converted[key] = value
        if key.startswith(_MASK_HEAD):
            for stage in range(1, CASCADE_STAGES):
                converted[key.replace('.0.', f'.{stage}.', 1)] = value
    return converted


def grid_of_positions(embedding: Tensor, class_token: bool) -> Tensor:
    """Returns a position embedding (1, L, d) as a map (1, d, √L, √L), without the class token's if it has one.

    Raises:
        InputError: The tokens make no square.
    """
    tokens = embedding.shape[1] - class_token if embedding.dim() == 3 else 0
    side = math.isqrt(max(tokens, 0))
    if tokens < 1 or side * side != tokens:
        raise InputError(f'no vim state dict: its position embedding, {tuple(embedding.shape)}, is that of no square')
    if class_token:
        middle = tokens // 2
        embedding = torch.cat([embedding[:, :middle], embedding[:, middle + 1:]], dim=1)
    return embedding.transpose(1, 2).unflatten(2, (side, side))
