"""The networks and scans that are measured are those of the registered models."""
from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

import mmmamba.layers.ss2d
from benchmarks.networks import MAMBA_YOLO, NETWORKS, build_network
from benchmarks.shapes import Ceilings, ScanShape, bound_ms, distinct_scans, scans_of

pytestmark = pytest.mark.usefixtures('mmdet_scope')
CONFIGS = Path(__file__).parents[2] / 'configs/_base_/models'


def registered(name: str) -> nn.Sequential:
    model = MODELS.build(Config.fromfile(CONFIGS / f'{name}.py').model)
    return nn.Sequential(model.backbone, model.neck, model.bbox_head).eval()


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Loads by position, whatever the names are."""
    values, names = source.state_dict().values(), target.state_dict().keys()
    assert len(values) == len(names)
    target.load_state_dict(dict(zip(names, values)))


@pytest.mark.parametrize('name', NETWORKS)
def test_parameters_are_those_of_the_registered_model(name):
    with torch.device('meta'):
        mine = [parameter.shape for parameter in build_network(name).parameters()]
    assert mine == [parameter.shape for parameter in registered(name).parameters()]


@pytest.mark.parametrize('name', ['mamba-yolo_t', 'yolov8_n'])
def test_outputs_are_those_of_the_registered_model(name):
    model, network = registered(name), build_network(name).eval()
    copy_in_order(model, network)
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        classes, boxes = model(x)
        for got, expected in zip(network(x), [*classes, *boxes]):
            torch.testing.assert_close(got, expected)


def test_unknown_networks_are_refused():
    with pytest.raises(ValueError, match="mamba-yolo_t.*'mamba-yolo_x'"):
        build_network('mamba-yolo_x')


@pytest.mark.parametrize('side', [640, 1280])
@pytest.mark.parametrize('size', MAMBA_YOLO)
@torch.no_grad()  # PyTorch 2.4 checkpoints nothing on meta tensors
def test_scans_are_those_of_the_registered_model(size, side, monkeypatch):
    seen = []

    def observe(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds, **_):
        seen.append(ScanShape(*x.shape[1:], dt_projs_weight.shape[2], A_logs.shape[1]))
        return torch.empty_like(x)

    monkeypatch.setattr(mmmamba.layers.ss2d, 'ss2d_scan', observe)
    registered(f'mamba-yolo_{size}').to('meta')(torch.empty(1, 3, side, side, device='meta'))
    assert Counter(seen) == scans_of(size, side)


def test_scans_of_several_models_are_listed_once():
    shapes = distinct_scans(['t', 'b'], [640, 1280])
    assert len(shapes) == len(set(shapes)) < sum(len(scans_of(size, side)) for size in 'tb' for side in (640, 1280))
    with pytest.raises(ValueError, match='multiple of 32'):
        scans_of('t', 650)


def test_bound_takes_the_dearer_of_traffic_and_exponentials():
    shape = ScanShape(64, 160, 160, 2)
    tokens = 160 * 160
    traffic = 1e3 * 2 * tokens * 64 * 4 / 1e12
    exponentials = 1e3 * tokens * 4 * 64 * 16 / 1e12
    assert bound_ms(shape, 1, 4, False, Ceilings(1e12, 1e30)) == pytest.approx(traffic)
    assert bound_ms(shape, 1, 4, False, Ceilings(1e30, 1e12)) == pytest.approx(exponentials)
    assert bound_ms(shape, 3, 4, True, Ceilings(1e30, 1e12)) == pytest.approx(6 * exponentials)
