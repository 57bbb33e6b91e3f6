"""Mamba YOLO's reference names to ours."""
from __future__ import annotations

from mmmamba.convert.key_map import SS2D, Names, StateDict, rename, under, without_wrappers
from mmmamba.convert.yolov8 import CONV, SPPF, flatten_projection, head_names

_CONV_NORM = {'0': 'conv', '1': 'norm'}
_STEM = {'0': 'conv1.conv', '1': 'conv1.norm', '3': 'conv2.conv', '4': 'conv2.norm'}
_BLOCK_BODY = {
    'norm.norm': 'norm1',
    'norm2.norm': 'norm2',
    'mlp.fc1': 'mlp.fc1',
    'mlp.dwconv': 'mlp.dwconv',
    'mlp.fc2': 'mlp.fc2',
    'lsblock.fc1': 'local.dwconv',
    'lsblock.norm': 'local.norm',
    'lsblock.fc2': 'local.fc1',
    'lsblock.fc3': 'local.fc2',
}
_BACKBONE_BLOCK = {**under('proj_conv', 'in_proj', _CONV_NORM), **under('op', 'ss2d.0', SS2D), **_BLOCK_BODY}
_NECK_BLOCK = {**under('in_proj', 'in_proj', _CONV_NORM), **under('ss2d.#', 'ss2d.#', SS2D), **_BLOCK_BODY}
_MERGE = under('pw_linear', 'proj', _CONV_NORM)


def _stage(index: int) -> Names:
    reference, ours = f'model.{2 * index + 1}', f'backbone.stages.{index}'
    # The reference numbers the blocks only if there are several.
    return {**under(reference, f'{ours}.0', _BACKBONE_BLOCK), **under(f'{reference}.#', f'{ours}.#', _BACKBONE_BLOCK)}


_NAMES = {
    **under('model.0.conv', 'backbone.stem', _STEM),
    **_stage(0),
    **under('model.2', 'backbone.downsamples.0', _MERGE),
    **_stage(1),
    **under('model.4', 'backbone.downsamples.1', _MERGE),
    **_stage(2),
    **under('model.6', 'backbone.downsamples.2', _MERGE),
    **_stage(3),
    **under('model.8', 'backbone.sppf', SPPF),
    **under('model.11', 'neck.top_down_blocks.0', _NECK_BLOCK),
    **under('model.14', 'neck.top_down_blocks.1', _NECK_BLOCK),
    **under('model.15', 'neck.downsamples.0', CONV),
    **under('model.17', 'neck.bottom_up_blocks.0', _NECK_BLOCK),
    **under('model.18', 'neck.downsamples.1', CONV),
    **under('model.20', 'neck.bottom_up_blocks.1', _NECK_BLOCK),
    **head_names('model.21'),
}


def mamba_yolo(state_dict: StateDict) -> StateDict:
    """Converts a Mamba YOLO detector for ODMamba, ODSSPAFPN and YOLOv8Head.

    Any size, with or without LSBlocks, any number of classes. One that segments instances is for YOLOv8InsHead.

    Args:
        state_dict: Keys as ``model.0.conv.0.weight``, also after ``module.`` or a second ``model.``.

    Raises:
        InputError: A state dict of something else.
    """
    return flatten_projection(rename(without_wrappers(state_dict, yolo=True), _NAMES, 'mamba-yolo'))
