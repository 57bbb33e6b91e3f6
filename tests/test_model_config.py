"""What is done to configs of detectors before they are built."""
from __future__ import annotations

from mmengine.config import ConfigDict

from mmmamba.model_config import drop_pretrained

NORMAL = dict(type='Normal', layer='Conv2d')
TRAINED = dict(type='Pretrained', checkpoint='absent.pth')


def test_trained_weights_go_wherever_they_stand():
    model = ConfigDict(
        backbone=dict(type='A', frozen_stages=1, init_cfg=TRAINED),
        neck=[dict(type='B', init_cfg=[TRAINED, NORMAL]), dict(type='C', init_cfg=(TRAINED, ))],
        bbox_head=dict(type='D', init_cfg=NORMAL, inside=dict(init_cfg=[NORMAL, NORMAL])))
    drop_pretrained(model)
    assert model == dict(
        backbone=dict(type='A', frozen_stages=1, init_cfg=None),
        neck=[dict(type='B', init_cfg=[NORMAL]), dict(type='C', init_cfg=[])],
        bbox_head=dict(type='D', init_cfg=NORMAL, inside=dict(init_cfg=[NORMAL, NORMAL])))
