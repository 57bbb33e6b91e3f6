"""LocalMamba's reference names to ours: LocalVMamba and LocalVim, classifiers and mmdet's detectors on them."""
from __future__ import annotations

from torch import Tensor

from mmmamba.convert.backbone import BACKBONE, OUT_NORMS, rename_backbone, split
from mmmamba.convert.key_map import SS2D, Names, StateDict, rename, repeated, under
from mmmamba.convert.vim import grid_of_positions, scan_names

DIRECTIONS = 4
_GATE = {'norm': 'norm', 'global_reduce': 'reduce', 'channel_select': 'expand'}
_VSS_BLOCK = {
    'norm': 'norm',
    **under('op', 'ss2d', SS2D),
    **under('op.multi_scan.attn', 'ss2d.gate', _GATE),
}


def _branch(direction: int) -> Names:
    ours, suffix = f'branches.{direction}', f'_{direction}'
    return {**scan_names(ours, suffix), f'A_log{suffix}': f'{ours}.A_log', f'D{suffix}': f'{ours}.D'}


_VIM_BLOCK = {
    'norm': 'norm',
    **under('mixer', 'mixer', {'in_proj': 'in_proj', 'out_proj': 'out_proj', **under('attn', 'gate', _GATE)}),
    **{name: ours for k in range(DIRECTIONS) for name, ours in under('mixer', 'mixer', _branch(k)).items()},
}
_NAMES = {
    **under('patch_embed', 'stem', {'0': 'conv', '2': 'norm', 'proj': 'proj'}),
    **repeated(4, 'layers.{}.blocks.#', 'stages.{}.#', _VSS_BLOCK),
    **repeated(3, 'layers.{}.downsample', 'downsamples.{}', {'norm': 'norm', 'reduction': 'reduction'}),
    **OUT_NORMS,
    'pos_embed': 'stem.pos_embed',
    **under('layers.#', 'blocks.#', _VIM_BLOCK),
    'outnorm_#': 'out_norms.#',
}
_CONVOLUTIONS = tuple(f'.{name}.weight' for name in (
    'ss2d.in_proj', 'ss2d.out_proj', 'gate.reduce', 'gate.expand', 'reduction'))
# The norm of mmcv's ConvModule has the name of its class there, and is mmdet's here.
_CONV_MODULE = {'conv': 'conv', 'norm_layer': 'norm'}
_PYRAMID = {
    **{f'fpn1.{layer}': f'levels.0.{layer}' for layer in (0, 1, 3)},
    'fpn2.0': 'levels.1.0',
    **{f'{reference}.{level}.{name}': f'levels.{level}.{first + number}.{ours}'
       for level, first in enumerate((4, 1, 0, 1))
       for number, reference in enumerate(('lateral_convs', 'fpn_convs'))
       for name, ours in _CONV_MODULE.items()},
}


def local_mamba(state_dict: StateDict) -> StateDict:
    """Converts a LocalVMamba or LocalVim classifier, or mmdet's Mask R-CNN on one; the backbone: under ``backbone.``.

    Any size. The directions are no weights: they are arguments of our backbones. LocalVim's position embedding becomes
    a map of its square grid, without the row of a class token in its middle.

    Args:
        state_dict: Keys as ``layers.0.blocks.0.op.in_proj.weight`` or ``layers.0.mixer.in_proj.weight``, also after
            ``backbone.``, ``module.`` or ``model.``.

    Raises:
        InputError: A state dict of something else.
    """
    class_token = any(key.endswith('cls_token') for key in state_dict)
    renamed = rename_backbone(state_dict, _NAMES, 'local-mamba')
    neck, others = split(renamed, 'neck.')
    if any(key.startswith('fpn1.') for key in neck):  # LocalVim's; LocalVMamba has mmdet's own
        neck = rename(neck, _PYRAMID, 'local-mamba')
        others = {key.replace('.norm_layer.', '.ln.'): value for key, value in others.items()}
    return {
        **{key: _shaped(key, value, class_token) for key, value in others.items()},
        **{f'neck.{key}': value for key, value in neck.items()},
    }


def _shaped(key: str, value: Tensor, class_token: bool) -> Tensor:
    if key == f'{BACKBONE}stem.pos_embed':
        return grid_of_positions(value, class_token)
    if value.dim() == 2 and key.startswith(BACKBONE) and key.endswith(_CONVOLUTIONS):
        return value[:, :, None, None]
    if value.dim() == 3 and key.endswith('.conv.weight'):
        return value.unsqueeze(2)  # ours are convolutions of maps of one row
    return value
