"""Runs on a CPU use fused layers; what is saved, and the model after the run, do not."""
from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from mmmamba.deploy.fused_layers import FusedODSSBlock, FusedSS2D
from mmmamba.engine import FusedLayersHook
from mmmamba.layers import ODSSBlock


def test_layers_are_fused_for_a_run_alone():
    model = nn.Sequential(ODSSBlock(8, 8)).eval()
    runner, hook, x = SimpleNamespace(model=model), FusedLayersHook(), torch.randn(1, 8, 5, 4)
    names = list(model.state_dict())
    with torch.no_grad():
        expected = model(x)
        hook.before_run(runner)
        assert type(model[0]) is FusedODSSBlock and type(model[0].ss2d[0]) is FusedSS2D
        assert list(model.state_dict()) == names
        torch.testing.assert_close(model(x), expected)
        hook.after_run(runner)
        assert type(model[0]) is ODSSBlock


def test_elsewhere_than_on_a_cpu_nothing_happens():
    model = nn.Sequential(ODSSBlock(8, 8)).to('meta')
    FusedLayersHook().before_run(SimpleNamespace(model=model))
    assert type(model[0]) is ODSSBlock
