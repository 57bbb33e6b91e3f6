"""YOLOv8's reference names to ours."""
from __future__ import annotations

from mmmamba.convert.key_map import Names, StateDict, rename, repeated, under, without_wrappers

CONV = {'conv': 'conv', 'bn': 'norm'}
SPPF = {**under('cv1', 'conv1', CONV), **under('cv2', 'conv2', CONV)}
_C2F = {**SPPF, **under('m.#', 'blocks.#', SPPF)}  # SPPF's two outer convolutions, and as many in each bottleneck


def head_names(reference: str) -> Names:
    """Returns the table of the decoupled head, which Mamba YOLO has from YOLOv8, with the branches of masks."""
    branch = {**under('0', '0', CONV), **under('1', '1', CONV), '2': '2'}
    prototypes = {**SPPF, **under('cv3', 'conv3', CONV), 'upsample': 'upsample'}
    return {
        f'{reference}.dfl.conv.weight': 'bbox_head.project',
        **repeated(3, reference + '.cv2.{}', 'bbox_head.reg_branches.{}', branch),
        **repeated(3, reference + '.cv3.{}', 'bbox_head.cls_branches.{}', branch),
        **repeated(3, reference + '.cv4.{}', 'bbox_head.coefficient_branches.{}', branch),
        **under(f'{reference}.proto', 'bbox_head.prototypes', prototypes),
    }


_NAMES = {
    **under('model.0', 'backbone.stem', CONV),
    **under('model.1', 'backbone.downsamples.0', CONV),
    **under('model.2', 'backbone.stages.0', _C2F),
    **under('model.3', 'backbone.downsamples.1', CONV),
    **under('model.4', 'backbone.stages.1', _C2F),
    **under('model.5', 'backbone.downsamples.2', CONV),
    **under('model.6', 'backbone.stages.2', _C2F),
    **under('model.7', 'backbone.downsamples.3', CONV),
    **under('model.8', 'backbone.stages.3', _C2F),
    **under('model.9', 'backbone.sppf', SPPF),
    **under('model.12', 'neck.top_down_blocks.0', _C2F),
    **under('model.15', 'neck.top_down_blocks.1', _C2F),
    **under('model.16', 'neck.downsamples.0', CONV),
    **under('model.18', 'neck.bottom_up_blocks.0', _C2F),
    **under('model.19', 'neck.downsamples.1', CONV),
    **under('model.21', 'neck.bottom_up_blocks.1', _C2F),
    **head_names('model.22'),
}


def yolov8(state_dict: StateDict) -> StateDict:
    """Converts a YOLOv8 detector (n, s, m, l, x) for YOLOv8CSPDarknet, YOLOv8PAFPN and YOLOv8Head.

    One that segments instances is for YOLOv8InsHead.

    Args:
        state_dict: Keys as ``model.0.conv.weight``, also after ``module.`` or a second ``model.``.

    Raises:
        InputError: A state dict of something else.
    """
    return flatten_projection(rename(without_wrappers(state_dict, yolo=True), _NAMES, 'yolov8'))


def flatten_projection(state_dict: StateDict) -> StateDict:
    """Flattens the bins of the distribution; the reference holds them as a 1x1 convolution (1, 16, 1, 1)."""
    project = 'bbox_head.project'
    return {key: value.flatten() if key == project else value for key, value in state_dict.items()}
