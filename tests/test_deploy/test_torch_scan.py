"""The scans as loops of plain operators, against the operators in float64."""
from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip('torch._higher_order_ops.scan')

from mmmamba.deploy.export import torch_scan
from mmmamba.deploy.export.exporter import Suppression, suppression_differences
from mmmamba.ops.scan.exported import exported_selective_scan, exported_ss2d_scan, order_tables
from mmmamba.ops.scan.orders import directions_of

TOLERANCE = 1e-12


def assert_close(got, expected):
    assert got.shape == expected.shape and got.is_contiguous()
    assert (got - expected).norm() <= TOLERANCE * expected.norm()


def drawn(*shapes):
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=draw).double() for shape in shapes]


def scan_inputs(batch, pixels, channels, states, rank, count):
    x, projected, dt_weight, bias, A, D = drawn(
        (batch, pixels, channels), (batch, pixels, count, rank + 2 * states), (count, channels, rank),
        (count, channels), (count, channels, states), (count, channels))
    return x, projected, dt_weight, bias * 4, -A.exp(), D


@pytest.mark.parametrize('pattern', ['cross', 'atrous', ('h', 'w7_flip', 'w2', 'v'), ('v_flip',)], ids=str)
@pytest.mark.parametrize('shape', [
    # batch, height, width, channels, states, rank
    (1, 6, 7, 8, 4, 2), (2, 9, 4, 5, 16, 1), (1, 1, 1, 2, 1, 1), (3, 1, 17, 1, 2, 3), (1, 4, 4, 3, 2, 1),
], ids=str)
def test_maps(pattern, shape):
    batch, height, width, channels, states, rank = shape
    directions = directions_of(pattern)
    inputs = (*scan_inputs(batch, height * width, channels, states, rank, len(directions)),
              *order_tables(directions, height, width, torch.device('cpu')))
    assert_close(torch_scan.ss2d_scan(*inputs), exported_ss2d_scan(*inputs))


@pytest.mark.parametrize('shape', [(1, 13, 4, 3), (2, 64, 8, 16), (3, 1, 2, 1)], ids=str)
def test_sequences(shape):
    batch, length, channels, states = shape
    x, projected, delta, A, D = drawn((batch, length, channels), (batch, length, 2 * states),
                                      (batch, length, channels), (channels, states), (channels,))
    inputs = x, projected, delta.abs(), -A.exp(), D
    assert_close(torch_scan.selective_scan(*inputs), exported_selective_scan(*inputs))


@pytest.mark.parametrize('most', [5, 300])
def test_boxes_are_chosen_as_defined(most):
    draw = np.random.default_rng(0)
    centre, sides = draw.uniform(0, 64, (2, 2, 60)), draw.uniform(1, 30, (2, 2, 60))
    output = np.concatenate([centre, sides, draw.uniform(0, 1, (2, 3, 60))], axis=1)
    output[:, 2:4, :5] = 0  # boxes without an area overlap none, themselves included
    chosen = Suppression(score_thr=0.3, iou_threshold=0.3, max_per_img=most)
    found = torch_scan.choose_boxes(torch.from_numpy(output), (64, 48), chosen).numpy()
    assert found.shape == (2, most, 6)
    for rows, cells in zip(found, output):
        differences = suppression_differences(rows, cells, chosen, (64, 48))
        assert max(differences.values()) < 1e-12
        assert (np.diff(rows[:, 4]) <= 0).all() and (rows[:, 4] > 0).sum() > 4
        assert not rows[rows[:, 4] == 0].any()
