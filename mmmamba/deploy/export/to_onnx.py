"""ONNX files, opset 18: each scan a node that is also a function of standard operators."""
from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxscript
import torch
from onnx import helper, numpy_helper

from mmmamba.deploy.export.exporter import Exporter, ExportOptions, Suppression, quiet, traced
from mmmamba.deploy.export.network import BoxNetwork, ExportedNetwork
from mmmamba.deploy.export.onnx_scan import DOMAIN, OPSET, VERSION, Builder, functions, register_schemas

IR_VERSION = 8  # the first that has functions, and opset 18's own: ONNX Runtime 1.17 reads up to 9


class OnnxExporter(Exporter):
    """One file for every runtime: where the compiled scan is installed, ONNX Runtime takes it, elsewhere the function.

    With ``portable`` the functions are inlined: standard operators alone, which also run faster without the compiled
    scan.
    """

    suffix = '.onnx'
    has_half = True

    def write(self, network: ExportedNetwork, out: Path, options: ExportOptions, metadata: dict[str, str]) -> None:
        model = _graph(network, options)
        if options.suppression and isinstance(network, BoxNetwork):
            add_suppression(model, network, options.suppression)
        model.functions.extend(functions())
        if options.portable:
            from onnx import inliner

            model = inliner.inline_local_functions(model)
        else:
            del_unused_functions(model)
        if options.half:
            store_half(model)
        model.ir_version = IR_VERSION
        for node in model.graph.node:
            del node.metadata_props[:]  # later than this version; paths of this machine and lines of code
        helper.set_model_props(model, metadata)
        onnx.save(model, str(out))


def _graph(network: ExportedNetwork, options: ExportOptions) -> onnx.ModelProto:
    """Returns the network as a graph from ``images`` to the network's outputs."""
    register_schemas()
    program = traced(network, options)
    with torch.no_grad(), quiet():
        return torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=['images'],
            output_names=list(network.output_names), custom_translation_table=_translations(), verbose=False,
            external_data=False).model_proto


def _translations() -> dict[Any, Any]:
    scans = onnxscript.values.Opset(DOMAIN, VERSION)

    def ss2d_scan(x, projected, dt_weight, bias, A, D, orders, places):
        return scans.SS2DScan(x, projected, dt_weight, bias, A, D, orders, places)

    def selective_scan(x, projected, delta, A, D):
        return scans.SelectiveScan(x, projected, delta, A, D)

    def gelu(x, approximate='none'):
        op = onnxscript.opset18  # in the order of operations that runtimes take for one
        inner = op.Erf(op.Div(x, math.sqrt(2))) if approximate == 'none' else op.Tanh(
            op.Mul(op.Add(x, op.Mul(op.Mul(op.Mul(x, x), x), 0.044715)), math.sqrt(2 / math.pi)))
        return op.Mul(op.Mul(x, op.Add(inner, 1.0)), 0.5)

    ops = torch.ops.mmmamba
    return {torch.ops.aten.gelu.default: gelu,
            ops.exported_ss2d_scan.default: ss2d_scan,
            ops.exported_selective_scan.default: selective_scan}


def del_unused_functions(model: onnx.ModelProto) -> None:
    """Leaves only the functions that the graph calls."""
    used = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
    kept = [function for function in model.functions if function.name in used]
    del model.functions[:]
    model.functions.extend(kept)


def store_half(model: onnx.ModelProto) -> None:
    """Keeps matrices of float16 values in float16, each with a ``Cast``, which runtimes compute when they load it."""
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) > 1:
            values = numpy_helper.to_array(weight)
            rounded = values.astype(np.float16)
            if np.array_equal(rounded, values):
                name, stored = weight.name, f'{weight.name}_half'
                weight.CopyFrom(numpy_helper.from_array(rounded, stored))
                casts.append(helper.make_node('Cast', [stored], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]  # in the order in which they are computed
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def add_suppression(model: onnx.ModelProto, network: BoxNetwork, chosen: Suppression) -> None:
    """Has the graph return ``detections`` (B, n, 6) instead: corners in pixels, score and class, best first.

    Rows after the last box are zeros; n is ``max_per_img``.
    """
    f = Builder('nms_')
    raw = network.output_names[0]
    boxes, scores = f.add('Split', raw, f.constant([4, network.num_classes]), outputs=2, axis=1)
    centre, sides = f.add('Split', f.add('Transpose', boxes, perm=[0, 2, 1]), f.constant([2, 2]), outputs=2, axis=2)
    half = f.add('Mul', sides, f.constant(0.5, np.float32))
    width_height = f.add('Cast', f.add('Gather', f.add('Shape', 'images'), f.constant([3, 2])),
                         to=onnx.TensorProto.FLOAT)
    corners = [f.add('Max', f.add('Min', corner, width_height), f.constant(0, np.float32))
               for corner in (f.add('Sub', centre, half), f.add('Add', centre, half))]
    boxes = f.add('Concat', *corners, axis=2)  # (B, cells, 4), clipped before they are compared, as mmdet does
    found = f.add(
        'NonMaxSuppression', boxes, scores, f.constant([chosen.max_per_img]),
        f.constant([chosen.iou_threshold], np.float32),
        f.constant([chosen.score_thr], np.float32))  # (n, 3): image, class, cell
    image, label, cell = f.add('Split', found, f.constant([1, 1, 1]), outputs=3, axis=1)
    score = f.add('GatherND', scores, found)
    rows = f.add('Concat', f.add('GatherND', boxes, f.add('Concat', image, cell, axis=1)),
                 f.add('Unsqueeze', score, f.constant([1])), f.add('Cast', label, to=onnx.TensorProto.FLOAT),
                 axis=1)  # (n, 6)
    # The best of each image: scores of the others are below any, and zeros are there to fill up.
    count = chosen.max_per_img
    batch = f.add('Slice', f.add('Shape', raw), f.constant([0]), f.constant([1]))
    numbers = f.add('Range', f.constant(0), f.add('Squeeze', batch), f.constant(1))
    own = f.add('Equal', f.add('Unsqueeze', numbers, f.constant([1])), f.add('Transpose', image, perm=[1, 0]))
    ranked = f.add('Where', own, f.add('Unsqueeze', score, f.constant([0])), f.constant(-1, np.float32))
    ranked = f.add('Pad', ranked, f.constant([0, 0, 0, count]), f.constant(-1, np.float32))
    best, index = f.add('TopK', ranked, f.constant([count]), outputs=2, axis=1)
    rows = f.add('Gather', f.add('Pad', rows, f.constant([0, 0, count, 0])), index)  # (B, count, 6)
    is_own = f.add('Unsqueeze', f.add('Greater', best, f.constant(0, np.float32)), f.constant([2]))
    f.nodes.append(helper.make_node('Where', [is_own, rows, f.constant(0, np.float32)], ['detections']))
    model.graph.node.extend(f.nodes)
    dimension = model.graph.output[0].type.tensor_type.shape.dim[0]
    batch_size = dimension.dim_param or dimension.dim_value
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(
        'detections', onnx.TensorProto.FLOAT, [batch_size, count, 6]))
