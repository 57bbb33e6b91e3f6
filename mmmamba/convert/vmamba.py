"""VMamba's reference names to ours."""
from __future__ import annotations

from torch import Tensor

from mmmamba.convert.backbone import BACKBONE, OUT_NORMS, rename_backbone
from mmmamba.convert.key_map import SS2D, StateDict, repeated, under

DIRECTIONS = 4

_STEM = {'0': '0.conv', '2': '0.norm', '5': '1.conv', '7': '1.norm', 'proj': '0.conv', 'norm': '0.norm'}
_DOWNSAMPLE = {'1': 'conv', '3': 'norm'}
_SS2D = {**SS2D, 'x_proj.weight': 'x_proj_weight', 'dt_projs.weight': 'dt_projs_weight'}
_BLOCK = {
    'norm': 'norm1',
    'ln_1': 'norm1',
    **under('op', 'ss2d', _SS2D),
    **under('self_attention', 'ss2d', _SS2D),
    'norm2': 'norm2',
    'mlp.fc1': 'mlp.fc1',
    'mlp.fc2': 'mlp.fc2',
}
_NAMES = {
    **under('patch_embed', 'stem', _STEM),
    **repeated(4, 'layers.{}.blocks.#', 'stages.{}.#', _BLOCK),
    **repeated(3, 'layers.{}.downsample', 'downsamples.{}', _DOWNSAMPLE),
    **OUT_NORMS,
}
_LINEAR = tuple(f'.{name}.weight' for name in ('in_proj', 'out_proj', 'fc1', 'fc2'))
_OF_ALL_DIRECTIONS = ('.x_proj_weight', '.dt_projs_weight')


def vmamba(state_dict: StateDict) -> StateDict:
    """Converts a VMamba classifier, or an mmdet detector on VMamba, for :class:`mmmamba.models.backbones.VMamba`.

    Any depths, widths and ratios, in the spellings that the public loading code knows; weights of linear layers become
    those of 1x1 convolutions. Vanilla VMamba (with gates and without MLPs) is another architecture, and is refused.

    Args:
        state_dict: Keys as ``layers.0.blocks.0.op.in_proj.weight``, also after ``backbone.`` or wrappers.

    Raises:
        InputError: A state dict of something else.
    """
    renamed = rename_backbone(state_dict, _NAMES, 'vmamba')
    return {key: _shaped(key, value) if key.startswith(BACKBONE) else value for key, value in renamed.items()}


def _shaped(key: str, value: Tensor) -> Tensor:
    """Shapes a matrix as our modules have it: as a 1x1 convolution, or cut into the directions."""
    if value.dim() == 2 and key.endswith(_LINEAR):
        return value[:, :, None, None]
    if value.dim() == 2 and key.endswith(_OF_ALL_DIRECTIONS) and len(value) % DIRECTIONS == 0:
        return value.unflatten(0, (DIRECTIONS, len(value) // DIRECTIONS))
    return value
