"""Validation runs fused layers, training and what is saved do not."""
from __future__ import annotations

from types import SimpleNamespace

import torch
from mmengine.hooks import EMAHook
from mmengine.runner.priority import get_priority
from torch import nn

from mmmamba.deploy.fused_layers import FusedODSSBlock, FusedSS2D
from mmmamba.engine import AtomicCheckpointHook, FusedInferenceHook
from mmmamba.layers import ODSSBlock


def test_layers_are_fused_for_an_evaluation_alone():
    model = nn.Sequential(ODSSBlock(8, 8)).eval()
    runner, hook, x = SimpleNamespace(model=model), FusedInferenceHook(), torch.randn(1, 8, 5, 4)
    names = list(model.state_dict())
    with torch.no_grad():
        expected = model(x)
        for before, after in ((hook.before_val_epoch, hook.after_val_epoch),
                              (hook.before_test_epoch, hook.after_test_epoch)):
            before(runner)
            assert type(model[0]) is FusedODSSBlock and type(model[0].ss2d[0]) is FusedSS2D
            torch.testing.assert_close(model(x), expected)
            after(runner)
            assert type(model[0]) is ODSSBlock and list(model.state_dict()) == names


def test_elsewhere_than_on_a_cpu_nothing_happens():
    model = nn.Sequential(ODSSBlock(8, 8)).to('meta')
    FusedInferenceHook().before_val_epoch(SimpleNamespace(model=model))
    assert type(model[0]) is ODSSBlock


def test_it_comes_after_the_averaged_weights_and_before_checkpoints():
    priorities = [get_priority(hook.priority) for hook in (EMAHook, FusedInferenceHook, AtomicCheckpointHook)]
    assert priorities == sorted(set(priorities))
