"""Mamba YOLO's reference names to ours."""
from __future__ import annotations

from mmmamba.convert.key_map import SS2D, Names, StateDict, indices, rename, under, without_yolo_wrappers
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

_STAGES = {f'model.{2 * i + 1}': f'backbone.stages.{i}' for i in range(4)}
_MERGES = {f'model.{2 * i + 2}': f'backbone.downsamples.{i}' for i in range(3)}
_NECK_BLOCKS = {
    'model.11': 'neck.top_down_blocks.0',
    'model.14': 'neck.top_down_blocks.1',
    'model.17': 'neck.bottom_up_blocks.0',
    'model.20': 'neck.bottom_up_blocks.1',
}
_NECK_CONVS = {'model.15': 'neck.downsamples.0', 'model.18': 'neck.downsamples.1'}
_HEAD = 'model.21'


def mamba_yolo(state_dict: StateDict) -> StateDict:
    """Converts a Mamba YOLO detector for ODMamba, ODSSPAFPN and YOLOv8Head.

    Any size, with or without LSBlocks, any number of classes: how many blocks a stage has, and how many scans a block
    of the neck, is read off the keys.

    Args:
        state_dict: Keys as ``model.0.conv.0.weight``, also after ``module.`` or a second ``model.``.

    Raises:
        InputError: A state dict of something else.
    """
    state_dict = without_yolo_wrappers(state_dict)
    names = {
        **under('model.0.conv', 'backbone.stem', _STEM),
        **under('model.8', 'backbone.sppf', SPPF),
        **head_names(_HEAD),
    }
    for reference, ours in _STAGES.items():
        names.update(_stage(reference, ours, len(indices(state_dict, reference))))
    for reference, ours in _MERGES.items():
        names.update(under(f'{reference}.pw_linear', f'{ours}.proj', _CONV_NORM))
    for reference, ours in _NECK_BLOCKS.items():
        names.update(under(reference, ours, _neck_block(len(indices(state_dict, f'{reference}.ss2d')))))
    for reference, ours in _NECK_CONVS.items():
        names.update(under(reference, ours, CONV))
    return flatten_projection(rename(state_dict, names, 'mamba-yolo'))


def _stage(reference: str, ours: str, blocks: int) -> Names:
    if blocks == 0:  # the reference numbers the blocks only where there are several
        return under(reference, f'{ours}.0', _BACKBONE_BLOCK)
    names: Names = {}
    for index in range(blocks):
        names.update(under(f'{reference}.{index}', f'{ours}.{index}', _BACKBONE_BLOCK))
    return names


def _neck_block(scans: int) -> Names:
    names = {**under('in_proj', 'in_proj', _CONV_NORM), **_BLOCK_BODY}
    for index in range(scans):
        names.update(under(f'ss2d.{index}', f'ss2d.{index}', SS2D))
    return names
