"""Files with weights in float16 (``--half``) and int8."""
from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip('onnxruntime')

import onnx
from exporting import export, run_pytorch
from small_detector import build, build_with_one_scan

from mmmamba.deploy.export import exporter, make_exporter, runtime
from mmmamba.deploy.export.exporter import as_input, composed_image
from mmmamba.deploy.export.network import rounded_to_half
from mmmamba.errors import InputError


@pytest.mark.parametrize('name, suffix', [('onnx', '.onnx'), ('openvino', '.xml')])
def test_half_keeps_rounded_weights(name, suffix, tmp_path):
    out = tmp_path / f'half{suffix}'
    network = export(build_with_one_scan(), out, name, size=(64, 96), portable=True, half=True)
    rounded = rounded_to_half(network)
    if name == 'onnx':  # every matrix but A and the step sizes' biases
        weights = onnx.load(out).graph.initializer
        halves = [weight for weight in weights if weight.data_type == onnx.TensorProto.FLOAT16]
        assert sum(int(np.prod(weight.dims)) for weight in halves) > 0.8 * sum(
            parameter.numel() for parameter in network.parameters() if parameter.dim() > 1)
    else:
        assert out.read_text().count('element_type="f16"') > 20
    images = as_input([composed_image(64, 96, seed=5)])
    expected, unrounded = (run_pytorch(each, images) for each in (rounded, network))
    got = runtime.open_file(out).run(images)[0]
    np.testing.assert_allclose(got[:, :4], expected[:, :4], rtol=0, atol=1e-3)
    moved = exporter.rounding_differences(network, (64, 96), [composed_image(64, 96, seed=5)])
    assert moved['boxes'] >= np.abs(expected - unrounded)[:, :4].max() > np.abs(expected - got)[:, :4].max()
    scans = [layer for layer in network.modules() if hasattr(layer, 'A_logs')]
    kept = [layer for layer in rounded.modules() if hasattr(layer, 'A_logs')]
    assert scans and all(torch.equal(one.A_logs, other.A_logs) for one, other in zip(scans, kept))


def test_half_that_cannot_be(monkeypatch, tmp_path):
    detector = build()
    torch.nn.init.constant_(detector.bbox_head.cls_branches[0][-1].weight, 1e5)
    with pytest.raises(InputError, match='--half: .*weight has values that float16 cannot hold'):
        export(detector, tmp_path / 'a.onnx', size=(64, 96), half=True)
    monkeypatch.setattr(type(make_exporter('onnx')), 'has_half', False)
    with pytest.raises(InputError, match='--half is for ONNX and OpenVINO files'):
        export(build(), tmp_path / 'a.onnx', size=(64, 96), half=True)
    assert not list(tmp_path.iterdir())


def test_int8(openvino_file, monkeypatch, tmp_path):
    pytest.importorskip('nncf')
    from mmmamba.deploy.export import quantize
    from mmmamba.deploy.export.to_openvino import read_model

    source, portable = openvino_file
    images = [composed_image(64, 96, seed=seed) for seed in range(3)]
    out = tmp_path / 'int8.xml'
    quantize.quantize(source, out, images)
    quantize.add_metadata(out, {'int8': '{"pictures": 3}'})
    assert out.with_suffix('.bin').stat().st_size < 0.7 * source.with_suffix('.bin').stat().st_size
    moved = quantize.differences_of_files(source, out, images, classes=3)
    # Two files in float32 differ by 1e-6; int8 by 8e-5 or, on a CPU that adds its products in 16 bits, more.
    assert 1e-5 < moved['mean of scores'] < 0.02 and moved['mean of boxes'] < 2
    assert runtime.Detector(out).classes == {0: 'square', 1: 'wide', 2: 'tall'}
    model = read_model(out)
    assert sum(operation.get_type_name() == 'FakeQuantize' for operation in model.get_ops()) > 10
    assert model.get_rt_info(['model_info', 'int8']).value == '{"pictures": 3}'
    del model
    monkeypatch.setattr(runtime.OpenVinoSession, 'run', lambda *_: [np.full(1, np.inf)])
    with pytest.raises(InputError, match='not finite'):
        quantize.quantize(source, tmp_path / 'bad.xml', images[:1])
    assert not list(tmp_path.glob('bad*'))
