"""Weights to start from, and what of a backbone stays frozen."""
from __future__ import annotations

import copy

import pytest
import torch
from mmdet.registry import MODELS
from recipes_of_configs import read

from mmmamba.errors import InputError
from mmmamba.settings import with_frozen, with_weights

pytestmark = pytest.mark.usefixtures('mmdet_scope')
YOLO = 'mamba_yolo/mamba-yolo_t_1xb16-30e_bccd'


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / 'trained.pth'
    path.touch()
    return str(path)


@pytest.mark.parametrize('name, stages, number', [
    (YOLO, None, 4), (YOLO, 1, 1), (YOLO, 0, 0),
    ('vim/cascade-mask-rcnn_vim-ti_simple-pyramid_8xb8-lsj-100e_coco', 3, 3),
    ('dino/dino-4scale_r50_8xb2-12e_coco', None, 4), ('rtmdet/rtmdet_tiny_8xb32-300e_coco', None, 4),
])
def test_stages_are_frozen(name, stages, number, weights):
    cfg = with_frozen(with_weights(read(name), weights), stages)
    assert cfg.model.backbone.frozen_stages == number
    with torch.device('meta'):
        backbone = MODELS.build(copy.deepcopy(cfg.model.backbone))
    backbone.train()
    frozen = [parameter for parameter in backbone.parameters() if not parameter.requires_grad]
    assert frozen and (len(frozen) == len(list(backbone.parameters()))) == (stages is None)
    norms = [module for module in backbone.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    if stages is None:
        assert norms and not any(norm.training for norm in norms)


def test_weights_replace_those_of_the_config(weights):
    cfg = with_weights(with_weights(read('dino/dino-4scale_r50_8xb2-12e_coco'), weights), weights)
    assert cfg.model.backbone.init_cfg is None and cfg.load_from is None
    assert [hook.checkpoint for hook in cfg.custom_hooks if hook.type == 'FineTuneHook'] == [weights]


def test_a_frozen_backbone_needs_weights():
    with pytest.raises(InputError, match='needs trained weights'):
        with_frozen(read(YOLO))
    assert with_frozen(read(YOLO), trained=True).model.backbone.frozen_stages == 4
    assert with_frozen(read('dino/dino-4scale_r50_8xb2-12e_coco')).model.backbone.frozen_stages == 4  # ImageNet's


def test_what_cannot_be_frozen_or_loaded_is_one_line(weights):
    with pytest.raises(InputError, match='ODMamba has 4 stages to freeze, got 5'):
        with_frozen(with_weights(read(YOLO), weights), 5)
    cfg = copy.deepcopy(read(YOLO))
    cfg.model.backbone = dict(type='PyramidVisionTransformer')
    with pytest.raises(InputError, match='PyramidVisionTransformer has no stages that can be frozen'):
        with_frozen(cfg, 1)
    with pytest.raises(InputError, match='none.pth: no such file, and no weights of that name'):
        with_weights(cfg, 'none.pth')
