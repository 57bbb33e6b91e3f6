"""Heads of every kind are compared with the classes of the set that they meet."""
from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
from mmdet.registry import MODELS
from mmengine.hub import get_config
from torch import nn

from mmmamba.engine import ClassCountHook
from mmmamba.errors import InputError
from mmmamba.model_config import set_num_classes

pytestmark = pytest.mark.usefixtures('mmdet_scope')

CASES = {
    'retinanet/retinanet_r50_fpn_1x_coco': ['bbox_head'],
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco': ['roi_head.bbox_head'],
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco': ['roi_head.bbox_head', 'roi_head.mask_head'],
    'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco': [f'roi_head.bbox_head.{stage}' for stage in range(3)],
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco': ['bbox_head'],
    'dino/dino-4scale_r50_8xb2-12e_coco': ['bbox_head'],
    'rtmdet/rtmdet_tiny_8xb32-300e_coco': ['bbox_head'],
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco': ['bbox_head'],
}


def model(name: str, classes: int) -> nn.Module:
    cfg = get_config(f'mmdet::{name}.py').model
    cfg.backbone.init_cfg = None
    set_num_classes(cfg, classes)
    if 'rpn_head' in cfg:
        cfg.rpn_head.pop('num_classes', None)
    return MODELS.build(copy.deepcopy(cfg))


def run(detector: nn.Module, mode: str, classes) -> None:
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo={} if classes is None else {'classes': classes}))
    runner = SimpleNamespace(model=detector, **{f'{mode}_dataloader': loader})
    hook = ClassCountHook()
    {'train': hook.before_train, 'val': hook.before_val_epoch, 'test': hook.before_test_epoch}[mode](runner)


@pytest.mark.parametrize('mode', ['train', 'val', 'test'])
@pytest.mark.parametrize('name', CASES)
def test_a_head_of_another_number_is_named(name, mode):
    detector = model(name, 4)
    run(detector, mode, tuple('abcd'))
    for classes in (tuple('abc'), tuple('abcde')):
        with pytest.raises(InputError) as error:
            run(detector, mode, classes)
        text = str(error.value)
        assert f'the {mode} set {len(classes)}: {", ".join(classes)}' in text and '\n' not in text
        for head in CASES[name]:
            assert f'{head} has num_classes=4' in text and f'model.{head}.num_classes' in text
        assert text.endswith(f'to {len(classes)})')


class Module(nn.Module):
    def __init__(self, num_classes: int | None = None, **children: nn.Module) -> None:
        super().__init__()
        if num_classes is not None:
            self.num_classes = num_classes
        for name, child in children.items():
            self.add_module(name, child)


class Agnostic(Module):
    class_agnostic = True


@pytest.mark.parametrize('detector, wrong', [
    (Module(backbone=Module(timm_model=Module(1000)), bbox_head=Module(3)), None),
    (Module(rpn_head=Module(stages=nn.ModuleList([Module(1), Module(1)])), roi_head=Module(3)), None),
    (Module(roi_head=Module(mask_head=Agnostic(80), bbox_head=Module(3))), None),
    (Module(module=Module(bbox_head=Module(2))), 'bbox_head has num_classes=2'),  # test-time augmentation
    (Module(bbox_head=Module(3, loss_cls=Module(1203))), 'bbox_head.loss_cls has num_classes=1203'),
    (Module(bbox_head=Module(256), language_model=Module()), None),
])
def test_modules_whose_number_has_another_meaning_pass(detector, wrong):
    if wrong is None:
        run(detector, 'train', ('a', 'b', 'c'))
    else:
        with pytest.raises(InputError, match=wrong):
            run(detector, 'train', ('a', 'b', 'c'))


def test_classes_that_are_a_text_are_refused_and_unknown_ones_pass():
    with pytest.raises(InputError, match=r"write \('balloon',\), with a comma"):
        run(Module(bbox_head=Module(7)), 'train', 'balloon')
    run(Module(bbox_head=Module(7)), 'train', None)
