"""One config of each recipe: of pipelines, schedule and data set."""
from __future__ import annotations

from functools import cache
from pathlib import Path

from mmengine.config import Config

CONFIGS = Path(__file__).parents[1] / 'configs'
ONE_OF_EACH = (
    'mamba_yolo/mamba-yolo_t_8xb64-300e_coco', 'mamba_yolo/mamba-yolo-seg_t_8xb64-300e_coco',
    'mamba_yolo/mamba-yolo_t_8xb64-300e_voc', 'mamba_yolo/mamba-yolo_t_1xb16-30e_bccd', 'mamba_yolo/mamba-yolo_t_demo',
    'mamba_yolo/mamba-yolo-seg_t_1xb2-60e_fruits-nuts',
    'efficient_vmamba/mask-rcnn_efficient-vmamba-t_fpn_1xb2_fruits-nuts',
    'efficient_vmamba/retinanet_efficient-vmamba-t_fpn_amp-1x_coco', 'vmamba/mask-rcnn_vmamba-t_fpn_ms-crop-3x_coco',
    'vim/cascade-mask-rcnn_vim-ti_simple-pyramid_8xb8-lsj-100e_coco', 'dino/dino-4scale_r50_8xb2-12e_coco',
    'od_mamba/fcos_od-mamba-t_fpn_gn-head_1x_coco', 'rtmdet/rtmdet_tiny_8xb32-300e_coco',
    'yolox/yolox_s_8xb8-300e_coco')


@cache
def read(name: str) -> Config:
    """A config, which nothing may change."""
    return Config.fromfile(CONFIGS / f'{name}.py')
