"""The scans of :mod:`mmmamba.ops.scan.exported` as ONNX functions of standard operators (opset 18).

A node ``mmmamba.SS2DScan`` or ``mmmamba.SelectiveScan`` runs as this function, unless the runtime has an operator of
that name: then the same file runs our compiled kernel. The function walks through the steps in blocks: ``Scan`` goes
from block to block, and in a block the decays of a step are one ``Exp``. The directions are one state, (K, B, N, D).
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.defs import OpSchema

DOMAIN = 'mmmamba'
VERSION = 1
OPSET = 18
BLOCK = 8
"""Steps of a block: more save calls, and make the function longer."""

SCANS = {
    'SS2DScan': ('x', 'projected', 'dt_weight', 'bias', 'A', 'D', 'orders', 'places'),
    'SelectiveScan': ('x', 'projected', 'delta', 'A', 'D'),
}
"""The operators, and what they take; shapes are in :mod:`mmmamba.ops.scan.exported`."""
_TABLES = ('orders', 'places')


class Builder:
    """Collects the nodes of a function or graph; values are their names."""

    def __init__(self, prefix: str = '') -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.prefix = prefix

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its output, or their names if there are several."""
        names = [f'{self.prefix}{op}_{len(self.nodes)}_{i}' for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        return self.add('Constant', value=numpy_helper.from_array(np.array(value, dtype)))

    def sizes(self, value: str, count: int) -> list[str]:
        """Returns the sizes of the first ``count`` dimensions, each a vector of one number."""
        shape = self.add('Shape', value)
        return [self.add('Slice', shape, self.constant([i]), self.constant([i + 1])) for i in range(count)]

    def join(self, *parts: str | int) -> str:
        """Joins vectors and numbers to one vector."""
        vectors = [self.constant([part]) if isinstance(part, int) else part for part in parts]
        return self.add('Concat', *vectors, axis=0)

    def reshape(self, value: str, *shape: str | int) -> str:
        return self.add('Reshape', value, self.join(*shape))


def register_schemas() -> None:
    """Tells ONNX of the operators, so that nodes can be made of them; harmless if it is known already."""
    for name, inputs in SCANS.items():
        if not onnx.defs.has(name, DOMAIN):
            onnx.defs.register_schema(OpSchema(
                name, DOMAIN, VERSION,
                inputs=[OpSchema.FormalParameter(each, 'I' if each in _TABLES else 'T') for each in inputs],
                outputs=[OpSchema.FormalParameter('y', 'T')],
                type_constraints=[('T', ['tensor(float)'], ''), ('I', ['tensor(int64)'], '')]))


def functions() -> list[onnx.FunctionProto]:
    """Returns both operators as functions."""
    return [_function('SS2DScan', *_ss2d_scan()), _function('SelectiveScan', *_selective_scan())]


def _function(name: str, builder: Builder, y: str) -> onnx.FunctionProto:
    builder.nodes.append(helper.make_node('Identity', [y], ['y']))
    return helper.make_function(
        DOMAIN, name, list(SCANS[name]), ['y'], builder.nodes, [helper.make_opsetid('', OPSET)])


def _ss2d_scan() -> tuple[Builder, str]:
    f = Builder()
    one = f.constant([1])
    batch, pixels, channels = f.sizes('x', 3)
    directions, _, states = f.sizes('A', 3)
    rank = f.add('Slice', f.add('Shape', 'dt_weight'), f.constant([2]), f.constant([3]))
    steps = f.add('Slice', f.add('Shape', 'orders'), one, f.constant([2]))

    # Pixels first, with a zero one at the end for what is padded: x (P + 1, B, D), the others (K, P + 1, B, ·).
    last = f.constant([0, 0, 0, 1, 0, 0])
    x = f.add('Transpose', 'x', perm=[1, 0, 2])
    padded = f.add('Pad', x, last)
    projected = f.add('Pad', f.add('Transpose', 'projected', perm=[2, 1, 0, 3]), f.constant([0, 0, 0, 0, 0, 1, 0, 0]))
    dt, B, C = f.add('Split', projected, f.join(rank, states, states), outputs=3, axis=3)
    dt = f.reshape(dt, directions, -1, rank)
    delta = f.add('MatMul', dt, f.add('Transpose', 'dt_weight', perm=[0, 2, 1]))
    delta = _softplus(f, f.add('Add', delta, f.add('Unsqueeze', 'bias', one)))

    # The pixel of every step, in whole blocks: (T', K), and with the direction as the row of K (P + 1) rows.
    missing = f.add('Mod', f.add('Neg', steps), f.constant([BLOCK]))
    order = f.add('Pad', 'orders', f.join(0, 0, 0, missing), f.add('Squeeze', pixels))
    order = f.add('Transpose', order, perm=[1, 0])
    number = f.add('Range', f.constant(0), f.add('Squeeze', directions), f.constant(1))
    row = f.add('Add', order, f.add('Mul', number, f.add('Add', pixels, one)))

    def sequence(rows: str, index: str, size: str) -> str:
        return f.add('Gather', f.reshape(rows, -1, batch, size), index)  # (T', K, B, size)

    y = _in_blocks(
        f, (sequence(padded, order, channels), sequence(delta, row, channels), sequence(B, row, states),
            sequence(C, row, states)), 'A', (directions, batch, states, channels))

    # Back to the pixels: (K, P, B, D), from rows of (T', K) and a zero one for a pixel that is not visited.
    rows = f.add('Pad', f.reshape(y, -1, batch, channels), last)
    visited = f.add('Less', 'places', steps)
    place = f.add('Add', f.add('Mul', 'places', directions), f.add('Unsqueeze', number, one))
    none = f.add('Mul', f.add('Add', steps, missing), directions)
    y = f.add('ReduceSum', f.add('Gather', rows, f.add('Where', visited, place, none)), f.constant([0]), keepdims=0)
    counted = f.add('Transpose', f.add('Cast', visited, to=onnx.TensorProto.FLOAT), perm=[1, 0])
    skip = f.add('Unsqueeze', f.add('MatMul', counted, 'D'), one)
    return f, f.add('Transpose', f.add('Add', y, f.add('Mul', skip, x)), perm=[1, 0, 2])


def _selective_scan() -> tuple[Builder, str]:
    f = Builder()
    batch, steps, channels = f.sizes('x', 3)
    states = f.add('Slice', f.add('Shape', 'A'), f.constant([1]), f.constant([2]))
    B, C = f.add('Split', 'projected', f.join(states, states), outputs=2, axis=2)
    missing = f.add('Mod', f.add('Neg', steps), f.constant([BLOCK]))
    pads = f.join(0, 0, 0, 0, missing, 0)

    def sequence(value: str, size: str) -> str:  # (B, T, size) to (T', 1, B, size); a padded step has the size zero
        value = f.add('Transpose', f.add('Pad', value, pads), perm=[1, 0, 2])
        return f.reshape(value, -1, 1, batch, size)

    y = _in_blocks(
        f, (sequence('x', channels), sequence('delta', channels), sequence(B, states), sequence(C, states)),
        f.add('Unsqueeze', 'A', f.constant([0])), (f.constant([1]), batch, states, channels))
    y = f.add('Slice', f.reshape(y, -1, batch, channels), f.constant([0]), steps, f.constant([0]))
    return f, f.add('Add', f.add('Transpose', y, perm=[1, 0, 2]), f.add('Mul', 'x', 'D'))


def _in_blocks(f: Builder, sequences: Sequence[str], A: str, sizes: Sequence[str]) -> str:
    """Returns Σ_n C h of every step, (T', K, B, D).

    Args:
        f: Gets the nodes.
        sequences: x and delta (T', K, B, D), B and C (T', K, B, N), where T' is a multiple of :data:`BLOCK`.
        A: (K, D, N).
        sizes: K, B, N and D.
    """
    directions, batch, states, channels = sizes
    rows = f.add('Mul', directions, batch)  # one dimension of both: runtimes are slow with many
    sizes_of: tuple[tuple[str | int, str | int], ...] = ((1, channels), (1, channels), (states, 1), (1, states))
    inputs = [f.reshape(value, -1, BLOCK, rows, *last) for value, last in zip(sequences, sizes_of)]
    A = f.add('Unsqueeze', f.add('Transpose', A, perm=[0, 2, 1]), f.constant([1]))
    A = f.reshape(f.add('Expand', A, f.join(*sizes)), 1, rows, states, channels)
    zero = helper.make_tensor('zero', onnx.TensorProto.FLOAT, [1], [0.0])
    start = f.add('ConstantOfShape', f.join(1, rows, states, channels), value=zero)

    body = Builder('block_')
    pieces = body.constant([1] * BLOCK)
    decays = body.add('Exp', body.add('Mul', 'delta_', 'A_'))
    added = body.add('MatMul', 'B_', body.add('Mul', 'delta_', 'x_'))
    decays, added = (body.add('Split', each, pieces, outputs=BLOCK, axis=0) for each in (decays, added))
    h, states_of_steps = 'h_', []
    for decay, step in zip(decays, added):
        h = body.add('Add', body.add('Mul', decay, h), step)
        states_of_steps.append(h)
    y = body.add('MatMul', 'C_', body.add('Concat', *states_of_steps, axis=0))
    outputs = [h, body.add('Identity', 'A_'), y]
    graph = helper.make_graph(body.nodes, 'block', [_value(name) for name in ('h_', 'A_', 'x_', 'delta_', 'B_', 'C_')],
                              [_value(name) for name in outputs])
    # A is a state too: the body takes nothing from outside, which runtimes copy in every round.
    y = f.add('Scan', start, A, *inputs, outputs=3, body=graph, num_scan_inputs=4)[2]
    return f.reshape(y, -1, directions, batch, channels)


def _value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * 4)  # of any sizes


def _softplus(f: Builder, x: str) -> str:
    """Adds max(x, 0) + log(1 + e^-|x|), of vectorised operators: runtimes compute Softplus number by number.

    With u = 1 + z rounded, log(1 + z) is log(u) z / (u - 1) to the last digits (Goldberg 1991, theorem 4), as long as
    u > 1; below, where z < 6e-8, this is 0.
    """
    zero, one = f.constant(0, np.float32), f.constant(1, np.float32)
    z = f.add('Exp', f.add('Neg', f.add('Abs', x)))
    u = f.add('Add', one, z)
    ratio = f.add('Div', z, f.add('Max', f.add('Sub', u, one), f.constant(1e-30, np.float32)))
    return f.add('Add', f.add('Max', x, zero), f.add('Mul', f.add('Log', u), ratio))
