"""YOLOv8's reference names to ours."""
from __future__ import annotations

from mmmamba.convert.key_map import Names, StateDict, indices, rename, under, without_yolo_wrappers

CONV = {'conv': 'conv', 'bn': 'norm'}
SPPF = {**under('cv1', 'conv1', CONV), **under('cv2', 'conv2', CONV)}

_BACKBONE_CONVS = {'model.0': 'backbone.stem', **{f'model.{2 * i + 1}': f'backbone.downsamples.{i}' for i in range(4)}}
_NECK_CONVS = {'model.16': 'neck.downsamples.0', 'model.19': 'neck.downsamples.1'}
_C2FS = {
    **{f'model.{2 * i + 2}': f'backbone.stages.{i}' for i in range(4)},
    'model.12': 'neck.top_down_blocks.0',
    'model.15': 'neck.top_down_blocks.1',
    'model.18': 'neck.bottom_up_blocks.0',
    'model.21': 'neck.bottom_up_blocks.1',
}
_HEAD = 'model.22'


def yolov8(state_dict: StateDict) -> StateDict:
    """Converts a YOLOv8 detector (n, s, m, l, x) for YOLOv8CSPDarknet, YOLOv8PAFPN and YOLOv8Head.

    Args:
        state_dict: Keys as ``model.0.conv.weight``, also after ``module.`` or a second ``model.``.

    Raises:
        InputError: A state dict of something else.
    """
    state_dict = without_yolo_wrappers(state_dict)
    names = {**under('model.9', 'backbone.sppf', SPPF), **head_names(_HEAD)}
    for reference, ours in {**_BACKBONE_CONVS, **_NECK_CONVS}.items():
        names.update(under(reference, ours, CONV))
    for reference, ours in _C2FS.items():
        names.update(under(reference, ours, _c2f(len(indices(state_dict, f'{reference}.m')))))
    return flatten_projection(rename(state_dict, names, 'yolov8'))


def head_names(reference: str) -> Names:
    """Returns the table of the decoupled head, which Mamba YOLO has from YOLOv8."""
    names = {f'{reference}.dfl.conv.weight': 'bbox_head.project'}
    for branch, ours in (('cv2', 'reg_branches'), ('cv3', 'cls_branches')):
        for level in range(3):
            sequence = {**under('0', '0', CONV), **under('1', '1', CONV), '2': '2'}
            names.update(under(f'{reference}.{branch}.{level}', f'bbox_head.{ours}.{level}', sequence))
    return names


def flatten_projection(state_dict: StateDict) -> StateDict:
    """Flattens the bins of the distribution; the reference holds them as a 1x1 convolution (1, 16, 1, 1)."""
    project = 'bbox_head.project'
    return {key: value.flatten() if key == project else value for key, value in state_dict.items()}


def _c2f(blocks: int) -> Names:
    names = dict(SPPF)  # the same two outer convolutions
    for index in range(blocks):
        names.update(under(f'm.{index}', f'blocks.{index}', SPPF))
    return names
