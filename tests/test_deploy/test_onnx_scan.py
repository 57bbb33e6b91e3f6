"""The scans as ONNX functions in ONNX Runtime, against their definition in float64."""
from __future__ import annotations

import pytest
import torch

pytest.importorskip('onnxruntime')

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from mmmamba.deploy.export.onnx_scan import DOMAIN, OPSET, SCANS, VERSION, functions
from mmmamba.ops.scan.exported import exported_selective_scan, exported_ss2d_scan, order_tables
from mmmamba.ops.scan.orders import directions_of

TOLERANCE = 1e-6


@pytest.fixture(scope='module')
def run():
    """A function that runs an operator, which no runtime knows, by its function."""
    sessions = {}
    for name, names in SCANS.items():
        inputs = [helper.make_tensor_value_info(
            each, TensorProto.INT64 if each in ('orders', 'places') else TensorProto.FLOAT, None) for each in names]
        graph = helper.make_graph([helper.make_node(name, names, ['y'], domain=DOMAIN)], name, inputs,
                                  [helper.make_tensor_value_info('y', TensorProto.FLOAT, None)])
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid('', OPSET), helper.make_opsetid(DOMAIN, VERSION)],
            functions=functions(), ir_version=10)
        sessions[name] = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=['CPUExecutionProvider'])

    def scan(name, inputs):
        values = {each: tensor.numpy().astype(np.float32) if tensor.is_floating_point() else tensor.numpy()
                  for each, tensor in zip(SCANS[name], inputs)}
        return torch.from_numpy(sessions[name].run(None, values)[0]).double()

    return scan


def assert_close(got, expected):
    assert got.shape == expected.shape
    assert (got - expected).norm() <= TOLERANCE * expected.norm()


@pytest.mark.parametrize('pattern', ['cross', 'atrous', ('h', 'w7_flip', 'w2', 'v'), ('v_flip',)], ids=str)
@pytest.mark.parametrize('shape', [
    # batch, height, width, channels, states, rank
    (1, 6, 7, 8, 4, 2), (2, 9, 4, 5, 16, 1), (1, 1, 1, 2, 1, 1), (3, 1, 17, 1, 2, 3),
], ids=str)
def test_maps(run, pattern, shape):
    batch, height, width, channels, states, rank = shape
    draw = torch.Generator().manual_seed(0)
    directions = directions_of(pattern)
    count, pixels = len(directions), height * width

    def random(*sizes):
        return torch.randn(*sizes, generator=draw).double()

    inputs = [random(batch, pixels, channels), random(batch, pixels, count, rank + 2 * states),
              random(count, channels, rank), random(count, channels) * 4, -random(count, channels, states).exp(),
              random(count, channels), *order_tables(directions, height, width, torch.device('cpu'))]
    assert_close(run('SS2DScan', inputs), exported_ss2d_scan(*inputs))


@pytest.mark.parametrize('shape', [(1, 13, 4, 3), (2, 64, 8, 16), (3, 1, 2, 1)], ids=str)
def test_sequences(run, shape):
    batch, length, channels, states = shape
    draw = torch.Generator().manual_seed(0)
    x, projected, delta, A, D = (torch.randn(*sizes, generator=draw).double() for sizes in (
        (batch, length, channels), (batch, length, 2 * states), (batch, length, channels), (channels, states),
        (channels,)))
    inputs = [x, projected, delta.abs(), -A.exp(), D]
    assert_close(run('SelectiveScan', inputs), exported_selective_scan(*inputs))


@pytest.mark.parametrize('directions', [('h', 'v_flip', 'w2', 'w7'), ('a10', 'a01')], ids=str)
def test_places_are_the_inverse_of_orders(directions):
    orders, places = order_tables(directions, 5, 3, torch.device('cpu'))
    for order, place in zip(orders, places):
        for pixel, step in enumerate(place.tolist()):
            visits = (order == pixel).nonzero().flatten().tolist()
            assert visits == ([] if step == orders.shape[1] else [step])
