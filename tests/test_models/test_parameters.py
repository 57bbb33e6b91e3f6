"""Parameter counts, exactly as the reference implementations have them (all parameters, DFL's frozen 16 included)."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

pytestmark = pytest.mark.usefixtures('mmdet_scope')
CONFIGS = Path(__file__).parents[2] / 'configs'

EXPECTED = {
    'mamba_yolo/mamba-yolo_t_8xb64-300e_coco.py': 5_442_612,
    'mamba_yolo/mamba-yolo_b_8xb64-300e_coco.py': 19_168_164,
    'mamba_yolo/mamba-yolo_l_8xb64-300e_coco.py': 49_227_952,
    'mamba_yolo/mamba-yolo_t_released_8xb64-300e_coco.py': 6_131_704,
    'mamba_yolo/mamba-yolo_b_released_8xb64-300e_coco.py': 21_828_000,
    'mamba_yolo/mamba-yolo_l_released_8xb64-300e_coco.py': 57_631_024,
    'yolov8/yolov8_n_8xb64-300e_coco.py': 3_157_200,
    'yolov8/yolov8_s_8xb64-300e_coco.py': 11_166_560,
    'yolov8/yolov8_m_8xb64-300e_coco.py': 25_902_640,
    'yolov8/yolov8_l_8xb64-300e_coco.py': 43_691_520,
    'mamba_yolo/mamba-yolo-seg_t_8xb64-300e_coco.py': 5_695_380,
    'mamba_yolo/mamba-yolo-seg_b_8xb64-300e_coco.py': 19_822_660,
    'mamba_yolo/mamba-yolo-seg_l_8xb64-300e_coco.py': 50_611_280,
    'mamba_yolo/mamba-yolo-seg_t_released_8xb64-300e_coco.py': 6_384_472,
    'mamba_yolo/mamba-yolo-seg_b_released_8xb64-300e_coco.py': 22_482_496,
    'mamba_yolo/mamba-yolo-seg_l_released_8xb64-300e_coco.py': 59_014_352,
    'yolov8/yolov8-seg_n_8xb64-300e_coco.py': 3_409_968,
    'yolov8/yolov8-seg_s_8xb64-300e_coco.py': 11_821_056,
    'yolov8/yolov8-seg_m_8xb64-300e_coco.py': 27_285_968,
    'yolov8/yolov8-seg_l_8xb64-300e_coco.py': 45_997_728,
    'yolov8/yolov8-seg_x_8xb64-300e_coco.py': 71_827_888,
}

BACKBONES = {  # with the norms of the four outputs
    ('MambaVision', 't'): 31_154_368,
    ('MambaVision', 't2'): 34_464_128,
    ('MambaVision', 's'): 49_372_928,
    ('MambaVision', 'b'): 96_662_080,
    ('MambaVision', 'l'): 226_394_792,
    ('MambaVision', 'l2'): 239_988_568,
    ('EfficientVMamba', 't'): 6_109_332,
    ('EfficientVMamba', 's'): 10_761_584,
    ('EfficientVMamba', 'b'): 32_949_480,
    ('VMamba', 't'): 29_481_408,
    ('VMamba', 's'): 48_245_184,
    ('VMamba', 'b'): 85_591_296,
    ('VMamba', 't_s2l5'): 29_938_176,
    ('LocalVMamba', 't'): 24_759_504,
    ('LocalVMamba', 's'): 48_980_880,
}


VIM = {  # position embedding of 64 x 64 tokens, and without it, and with both it and the pyramid
    'ti': (7_703_232, 6_916_800, 10_368_112),
    's': (26_908_032, 25_335_168, 30_206_176),
    'b': (99_822_336, 96_676_608, 105_382_336),
}


LOCAL_VIM = {  # position embedding of 64 x 64 tokens, norm of one output
    't': (192, 8_553_984),
    's': (384, 28_904_448),
}


@pytest.mark.parametrize('name', EXPECTED)
def test_parameters(name):
    model = MODELS.build(Config.fromfile(CONFIGS / name).model)
    assert sum(parameter.numel() for parameter in model.parameters()) == EXPECTED[name]


@pytest.mark.parametrize(('name', 'arch'), BACKBONES)
def test_backbone(name, arch):
    with torch.device('meta'):
        model = MODELS.build(dict(type=name, arch=arch))
    assert sum(parameter.numel() for parameter in model.parameters()) == BACKBONES[name, arch]


@pytest.mark.parametrize('arch', VIM)
def test_vim_and_its_pyramid(arch):
    with torch.device('meta'):
        backbone = MODELS.build(dict(type='Vim', arch=arch))
        neck = MODELS.build(dict(type='SimpleFeaturePyramid', in_channels=backbone.width))
    count, pyramid = (sum(parameter.numel() for parameter in model.parameters()) for model in (backbone, neck))
    assert (count, count - backbone.stem.pos_embed.numel(), count + pyramid) == VIM[arch]


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize('arch', LOCAL_VIM)
def test_local_vim(arch):
    width, expected = LOCAL_VIM[arch]
    with torch.device('meta'):
        assert count(MODELS.build(dict(type='LocalVim', arch=arch))) == expected
        assert count(MODELS.build(dict(type='LocalVim', arch=arch, rms_norm=True))) == expected - 20 * width


@pytest.mark.parametrize(('name', 'arch', 'expected'), [
    ('LocalVMamba', 't', 25_527_160), ('LocalVMamba', 's', 49_748_536),
    ('LocalVim', 't', 7_994_152), ('LocalVim', 's', 27_783_784)])
def test_local_mamba_as_classifiers(name, arch, expected):
    """With a last norm and a linear layer of 1000 classes, without the norms of the outputs; 14 x 14 positions."""
    with torch.device('meta'):
        settings = dict(img_size=224, rms_norm=True) if name == 'LocalVim' else {}
        model = MODELS.build(dict(type=name, arch=arch, **settings))
    width = model.out_norms[-1 if name == 'LocalVim' else '3'].weight.numel()
    norm = width if name == 'LocalVim' else 2 * width  # an RMS norm has no bias
    assert count(model) - count(model.out_norms) + norm + 1000 * (width + 1) == expected


@pytest.mark.parametrize(('arch', 'published'), [('t', 45), ('s', 69)])
def test_mask_rcnn_on_local_vmamba_has_the_published_millions(arch, published):
    config = Config.fromfile(CONFIGS / f'local_mamba/mask-rcnn_local-vmamba-{arch}_fpn_amp-1x_coco.py')
    with torch.device('meta'):
        assert round(count(MODELS.build(config.model)) / 1e6) == published


@pytest.mark.parametrize(('name', 'expected'), [
    ('mamba-yolo_t', 5_879_924), ('mamba-yolo_b', 20_882_468), ('mamba-yolo_l', 53_466_160),
    ('mamba-yolo-seg_t', 6_132_692), ('mamba-yolo-seg_b', 21_536_964), ('mamba-yolo-seg_l', 54_849_488)])
def test_paper_depths_with_ls_block(name, expected):
    cfg = Config.fromfile(CONFIGS / f'mamba_yolo/{name}_8xb64-300e_coco.py').model
    cfg.backbone.local_spatial = cfg.neck.local_spatial = True
    model = MODELS.build(cfg)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize(('arch', 'published'), [('t', 50), ('t-s2l5', 50), ('s-s2l15', 70), ('b-s2l15', 108)])
def test_mask_rcnn_on_vmamba_has_the_published_millions(arch, published):
    config = Config.fromfile(CONFIGS / f'vmamba/mask-rcnn_vmamba-{arch}_fpn_1x_coco.py')
    with torch.device('meta'):
        model = MODELS.build(config.model)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == published


def test_efficient_vmamba_s_as_released():
    with torch.device('meta'):
        model = MODELS.build(dict(type='EfficientVMamba', arch='s', widths=(96, 192, 384, 768)))
    assert sum(parameter.numel() for parameter in model.parameters()) == 23_989_800
