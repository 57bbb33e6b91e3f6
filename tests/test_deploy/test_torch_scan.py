"""The scans as loops of plain operators, against the operators in float64."""
from __future__ import annotations

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.needs_torch('2.11', 'has a scan operator')
torch_scan = pytest.importorskip('mmmamba.deploy.export.torch_scan', exc_type=ImportError)

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


@pytest.mark.needs_torch('2.13', 'saves programs with loops')
def test_a_saved_program_is_one_for_all_sizes(tmp_path):
    directions = directions_of('cross')

    class Scan(torch.nn.Module):
        def forward(self, x, projected, *weights):  # (B, H, W, ·)
            tables = order_tables(directions, *x.shape[1:3], x.device)
            return exported_ss2d_scan(x.flatten(1, 2), projected.flatten(1, 2), *weights, *tables)

    def inputs(batch, height, width):
        x, projected, *weights = scan_inputs(batch, height * width, 3, 2, 1, len(directions))
        return x.unflatten(1, (height, width)), projected.unflatten(1, (height, width)), *weights

    open_sizes = {0: torch.export.Dim('batch'), 1: torch.export.Dim('height', min=2, max=99),
                  2: torch.export.Dim('width', min=2, max=99)}
    with torch.no_grad():
        program = torch.export.export(Scan(), inputs(2, 8, 12), dynamic_shapes=(open_sizes, open_sizes, (None,) * 4))
        program = program.run_decompositions(torch_scan.decompositions())
    torch.export.save(program, tmp_path / 'scan.pt2')
    loaded = torch.export.load(tmp_path / 'scan.pt2')
    targets = {node.target for graph in loaded.graph_module.modules() for node in graph.graph.nodes}
    assert not [target for target in map(str, targets) if 'mmmamba' in target]
    for shape in ((2, 8, 12), (1, 5, 9), (3, 16, 3)):
        assert_close(loaded.module()(*inputs(*shape)), Scan()(*inputs(*shape)))


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
