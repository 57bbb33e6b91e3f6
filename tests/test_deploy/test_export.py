"""Detectors as ONNX files, equal to PyTorch, and run without it."""
from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip('onnxruntime')

import onnx
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from small_detector import ALONE, build, build_with_one_scan

from mmmamba.deploy.export import (
    ExportOptions,
    Preprocessing,
    Suppression,
    exported_network,
    exporter,
    make_exporter,
    runtime,
)
from mmmamba.deploy.export import network as network_module
from mmmamba.deploy.export.exporter import as_input, composed_image, on_backend
from mmmamba.deploy.export.network import rounded_to_half
from mmmamba.deploy.native.libraries import openvino_library
from mmmamba.errors import InputError

NMS = Suppression(score_thr=0.1, iou_threshold=0.5, max_per_img=20)
PREPROCESSING = partial(Preprocessing, 114, ('square', 'wide', 'tall'))


def export(detector, out, **options):
    """Writes a file; returns what PyTorch runs."""
    network = exported_network(detector)
    make_exporter('onnx').export(network, out, ExportOptions(**options), PREPROCESSING())
    return network


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """A file for 64 x 96, and what PyTorch runs."""
    out = tmp_path_factory.mktemp('export') / 'tiny.onnx'
    return out, export(build(), out, size=(64, 96))


def assert_equals_pytorch(file, network):
    """Compares on another picture than the exporter does."""
    images = as_input([composed_image(64, 96, seed=5)])
    with torch.no_grad(), on_backend(network, None):
        expected = network(torch.from_numpy(images))[0].numpy()
    got = runtime.open_file(file).run(images)[0]
    assert got.shape == expected.shape
    np.testing.assert_allclose(got[:, :4], expected[:, :4], rtol=0, atol=1e-3)
    np.testing.assert_allclose(got[:, 4:], expected[:, 4:], rtol=0, atol=1e-5)


def test_file_computes_what_the_detector_does(exported):
    out, network = exported
    assert_equals_pytorch(out, network)
    assert runtime.OnnxSession(out).run(np.zeros((1, 3, 64, 96), np.float32))[0].shape == (
        1, 4 + 3, 8 * 12 + 4 * 6 + 2 * 3)


def test_boxes_are_those_of_the_detector(exported):
    detector = build().eval()
    images = as_input([composed_image(64, 96, seed=6)])
    with torch.no_grad():
        scores, boxes = detector.bbox_head(detector.extract_feat(torch.from_numpy(images)))
        raw = detector.bbox_head.predict_by_feat(
            scores, boxes, [dict(img_shape=(64, 96))], rescale=False,
            cfg=Config(dict(nms_pre=1000, score_thr=0.1, nms=dict(type='nms', iou_threshold=0.5), max_per_img=20)))[0]
    rows = runtime.nms(runtime.OnnxSession(exported[0]).run(images)[0][0], 3, 0.1, 0.5, np.array([96, 64, 96, 64]), 20)
    np.testing.assert_allclose(rows[:, :4], raw.bboxes.numpy(), atol=1e-3)
    np.testing.assert_allclose(rows[:, 4], raw.scores.numpy(), atol=1e-5)
    assert rows[:, 5].tolist() == raw.labels.tolist() and len(rows) > 5


@pytest.mark.parametrize('has_nms', [False, True])
def test_boxes_in_the_padding_are_left_out_and_take_no_place(has_nms):
    """As mmdet's ``min_bbox_size=0``; a picture of 32 x 96 fills the upper half of 64 x 96."""
    outputs = np.zeros((1, 5, 301), np.float32)  # 300 boxes below the picture, and one in it
    outputs[0, :, :300] = np.array([[20], [50], [30], [20], [0.9]])
    outputs[0, 0, :300] += np.arange(300)
    outputs[0, :, 300] = 20, 10, 30, 20, 0.5
    rows = np.array([[[5, 40, 35, 60, 0.9, 0], [5, 0, 35, 20, 0.5, 0], [0] * 6]], np.float32)
    detector = runtime.Detector.__new__(runtime.Detector)  # without a file
    detector.__dict__.update(score=0.25, iou=0.7, has_nms=has_nms, classes={0: 'a'}, size=(64, 96), pad_value=114,
                             session=SimpleNamespace(run=lambda _: [rows if has_nms else outputs]))
    found = detector(np.zeros((32, 96, 3), np.uint8))
    assert found.boxes.tolist() == [[5, 0, 35, 20]] and found.scores.tolist() == [0.5] and found.labels.tolist() == [0]


def test_scans_are_nodes_with_a_function_of_standard_operators(exported):
    model = onnx.load(exported[0])
    onnx.checker.check_model(model)
    assert sum(node.op_type == 'SS2DScan' for node in model.graph.node) == 8
    assert [function.name for function in model.functions] == ['SS2DScan']
    assert {node.domain for node in model.functions[0].node} == {''}


def test_portable_and_open_sizes_and_suppression(tmp_path):
    out = tmp_path / 'tiny.onnx'
    network = export(build_with_one_scan(), out, size=(64, 96), portable=True, dynamic=True, suppression=NMS)
    model = onnx.load(out)
    assert not model.functions and {node.domain for node in model.graph.node} == {''}
    images = as_input([composed_image(160, 32, seed=seed) for seed in range(3)])
    rows = runtime.OnnxSession(out).run(images)[0]
    assert rows.shape == (3, 20, 6)
    with torch.no_grad(), on_backend(network, None):
        outputs = network(torch.from_numpy(images))[0].numpy()
    for image, output in zip(rows, outputs):
        found = exporter.suppression_differences(image, output, NMS, (160, 32))
        assert found['boxes'] <= 1e-3 and found['scores'] <= 1e-5 and (image[:, 4] > 0).sum() > 5
        for wrong in (np.roll(image[:-1], 1, axis=0)[:5], np.concatenate([image, image[:1]])):
            with pytest.raises(InputError, match='NMS'):
                exporter.suppression_differences(wrong, output, NMS, (160, 32))
    assert all((np.diff(image[:, 4]) <= 0).all() for image in rows)


@pytest.mark.parametrize('model', [
    dict(backbone=dict(type='EfficientVMamba', arch=None, widths=(8, 16, 32, 64), depths=(1, 1, 1, 1))),
    dict(backbone=dict(type='MambaVision', arch=None, widths=(8, 16, 32, 64), depths=(1, 1, 2, 2), num_heads=(2, 2),
                       window_sizes=(3, 2))),
    dict(backbone=dict(type='LocalVMamba', arch=None, widths=(8, 16, 32, 64), depths=(1, 1, 1, 1),
                       directions=[('h', 'v_flip', 'w2', 'w7')] * 4)),
    dict(backbone=dict(type='Vim', arch=None, depth=2, width=32, img_size=64)),
], ids=lambda model: model['backbone']['type'])
def test_maps_of_other_backbones(model, tmp_path):
    detector = build(**model, neck=None, bbox_head=dict(type='YOLOv8Head', num_classes=3, in_channels=(8, 8, 8)))
    del detector.bbox_head  # of any detector, backbone and neck
    export(detector, tmp_path / 'maps.onnx', size=(64, 96))
    images = as_input([composed_image(64, 96, seed=5)])
    with torch.no_grad():
        expected = detector.eval().extract_feat(torch.from_numpy(images))
    got = runtime.OnnxSession(tmp_path / 'maps.onnx').run(images)
    assert len(got) == len(expected) > 0
    for found, value in zip(got, expected):
        assert np.linalg.norm(found - value.numpy()) <= 1e-4 * value.norm() and found.shape == value.shape


@pytest.mark.parametrize('options, out, problem', [
    (dict(size=(60, 96)), 'a.onnx', 'multiples of 32'),
    (dict(size=(64, 96)), 'a.xml', 'must end with .onnx'),
])
def test_bad_options(options, out, problem, tmp_path):
    with pytest.raises(InputError, match=problem):
        export(build(), tmp_path / out, **options)
    assert not list(tmp_path.iterdir())


def test_names_that_are_not_the_heads(tmp_path):
    with pytest.raises(InputError, match='the head has 3 classes, but there are names for 2'):
        make_exporter('onnx').export(exported_network(build()), tmp_path / 'a.onnx', ExportOptions((64, 64)),
                                     Preprocessing(114, ('square', 'wide')))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('normalisation', [
    dict(mean=[10, 20, 30], std=[40, 60, 80], bgr_to_rgb=True),
    dict(mean=[10, 20, 30], std=[40, 60, 80], bgr_to_rgb=False),
    dict(mean=[0] * 3, std=[1] * 3, bgr_to_rgb=False, pad_size_divisor=128),
], ids=['RGB', 'BGR', 'BGR from 0 to 255'])
def test_maps_are_those_of_the_detector(normalisation, tmp_path):
    """Of pictures as a pipeline loads them, with the detector's own normalisation, backbone and neck."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    detector = MODELS.build(dict(
        type='RetinaNet', data_preprocessor=dict(type='DetDataPreprocessor', **normalisation),
        backbone=dict(type='ResNet', depth=18, base_channels=8, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1),
                      out_indices=(0, 1, 2)),
        neck=dict(type='FPN', in_channels=[8, 16, 32], out_channels=8, num_outs=3),
        bbox_head=dict(type='RetinaHead', num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1)))
    out = tmp_path / 'maps.onnx'
    export(detector, out, size=(64, 96))
    picture = composed_image(64, 96, seed=3)  # BGR
    detector.data_preprocessor.pad_size_divisor = 1
    with torch.no_grad():
        expected = detector.eval().extract_feat(detector.data_preprocessor(
            {'inputs': [torch.from_numpy(picture).permute(2, 0, 1)]})['inputs'])
    got = runtime.OnnxSession(out).run(as_input([picture[..., ::-1]]))
    assert len(got) == len(expected) == 3
    for mine, its in zip(got, expected):
        np.testing.assert_allclose(mine, its, rtol=0, atol=1e-4 * float(its.abs().max()))


def test_a_form_that_computes_something_else_is_refused(monkeypatch):
    monkeypatch.setattr(network_module, 'rearrange_blocks', lambda detector: detector.backbone.stages[0].apply(
        lambda layer: torch.nn.init.zeros_(layer.weight) if isinstance(layer, torch.nn.Conv2d) else None))
    with pytest.raises(InputError, match='SingleStageDetector cannot be exported: its form .* differs from it by'):
        exported_network(build())


def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, 'SCORE_TOLERANCE', -1.0)
    with pytest.raises(InputError, match='scores differ from PyTorch'):
        export(build_with_one_scan(), tmp_path / 'a.onnx', size=(64, 64))
    assert not list(tmp_path.iterdir())


def test_runtime_needs_neither_torch_nor_this_package(exported):
    done = subprocess.run([sys.executable, '-c', ALONE, str(Path(runtime.__file__)), str(exported[0]), 'torch'],
                          capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith('found '), done.stderr


def test_bad_files_and_images(exported, tmp_path):
    broken = tmp_path / 'broken.onnx'
    broken.write_bytes(exported[0].read_bytes()[:1000])
    for path, problem in ((broken, 'cannot be read'), (tmp_path / 'none.onnx', 'is no file')):
        with pytest.raises(runtime.RuntimeFileError, match=problem):
            runtime.Detector(path)
    detector = runtime.Detector(exported[0])
    for shape in ((1, 300, 3), (640, 2, 3), (1, 1, 3)):
        detector(np.zeros(shape, np.uint8))
    for image in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(runtime.RuntimeFileError, match='uint8'):
            detector(image)
    for images in (np.zeros((1, 3, 32, 32), np.float32), np.zeros((1, 3, 64, 96)), np.zeros((3, 64, 96), np.float32)):
        with pytest.raises(runtime.RuntimeFileError, match='inputs of .* float32, got'):
            detector.session.run(images)


@pytest.mark.parametrize('change', [
    dict(task='features'), dict(task=None), dict(end2end=None), dict(names='{0'), dict(names='3'), dict(imgsz='[64]'),
    dict(letterbox='[]'), dict(letterbox=None)], ids=str)
def test_files_of_others_are_refused(exported, change, tmp_path):
    model = onnx.load(exported[0])
    facts = {prop.key: prop.value for prop in model.metadata_props} | change
    onnx.helper.set_model_props(model, {key: value for key, value in facts.items() if value is not None})
    onnx.save(model, tmp_path / 'other.onnx')
    with pytest.raises(runtime.RuntimeFileError, match='was not exported from a detector with boxes'):
        runtime.Detector(tmp_path / 'other.onnx')


@pytest.mark.parametrize('shape', [(48, 97), (97, 48), (64, 96), (5, 5)])
def test_letterbox_is_that_of_the_pipeline(shape):
    from mmcv.transforms import Compose

    init_default_scope('mmdet')
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    pipeline = Compose([dict(type='Resize', scale=(64, 64), keep_ratio=True),
                        dict(type='LetterboxPad', size=(64, 64), pad_val=dict(img=(114, 114, 114)))])
    expected = pipeline(dict(img=image, img_shape=shape))
    inputs, scale = runtime.letterbox(image, (64, 64), 114)
    np.testing.assert_array_equal(np.rint(inputs[0].transpose(1, 2, 0)[..., ::-1] * 255), expected['img'])
    np.testing.assert_allclose(scale[:2], expected['scale_factor'])


@pytest.fixture(scope='module', params=[True, False], ids=['portable', 'extension'])
def openvino_file(request, tmp_path_factory):
    """An .xml file, and whether its scans are OpenVINO's own operators."""
    pytest.importorskip('openvino')
    if not request.param and (library := openvino_library()).path is None:
        pytest.skip(library.reason)
    out = tmp_path_factory.mktemp('export') / 'tiny.xml'
    make_exporter('openvino').export(exported_network(build_with_one_scan()), out,
                                     ExportOptions((64, 96), portable=request.param), PREPROCESSING())
    assert sorted(path.name for path in out.parent.iterdir()) == ['tiny.bin', 'tiny.xml']
    return out, request.param


def test_openvino(openvino_file):
    out, portable = openvino_file
    detector = runtime.Detector(out, score=0.1)
    assert detector.classes == {0: 'square', 1: 'wide', 2: 'tall'} and detector.size == (64, 96)
    assert detector.scans == ('standard operators' if portable else str(openvino_library().path))
    image = np.full((50, 90, 3), 90, np.uint8)
    found = detector(image)
    rounded = runtime.Detector(out, score=0.1, precision='bf16')(image)
    assert len(found.labels) > 5 and abs(len(rounded.labels) - len(found.labels)) <= 2
    np.testing.assert_allclose(rounded.scores[:3], found.scores[:3], atol=0.02)
    assert_equals_pytorch(out, exported_network(build_with_one_scan()))


def test_a_file_that_needs_the_extension_says_so(openvino_file, monkeypatch, tmp_path):
    out, portable = openvino_file
    other = tmp_path / 'libmmmamba_openvino.so'
    (tmp_path / 'openvino_version.txt').write_text('2020.1.0\n')
    alone = tmp_path / 'alone' / other.name
    for library, problem in ((None, 'there is none here'), (other, 'was built for OpenVINO 2020.1.0'),
                             (alone, 'openvino_version.txt, which belongs to the one here, is missing')):
        monkeypatch.setattr(runtime, 'find_library', lambda name, library=library: library)
        if portable:
            assert runtime.Detector(out).scans == 'standard operators'
        else:
            with pytest.raises(runtime.RuntimeFileError, match=f'needs the compiled scan, and .*{problem}'):
                runtime.Detector(out)


def test_a_damaged_extension_and_an_openvino_without_a_release(openvino_file, monkeypatch, tmp_path):
    out, portable = openvino_file
    library = tmp_path / 'libmmmamba_openvino.so'
    library.write_bytes(b'no library')
    monkeypatch.setattr(runtime, 'find_library', lambda name: library)
    (tmp_path / 'openvino_version.txt').write_text(f'{runtime.version("openvino")}\n')
    with pytest.raises(runtime.RuntimeFileError, match='libmmmamba_openvino.so cannot be used: '):
        runtime.Detector(out)

    def without(package):
        raise runtime.PackageNotFoundError(package)

    monkeypatch.setattr(runtime, 'version', without)
    if portable:
        runtime.Detector(out)
    else:
        with pytest.raises(runtime.RuntimeFileError, match='not of an unknown release'):
            runtime.Detector(out)


FIRST_OUT_FIRST = """
import gc, signal, subprocess, sys
from mmmamba.deploy.export import runtime

sessions = [runtime.OpenVinoSession(sys.argv[1]) for _ in range(2)]
while sessions:
    del sessions[0]
    gc.collect()
signal.signal(signal.SIGCHLD, lambda *_: print('handled'))
subprocess.run(['true'])
"""


def test_signals_are_handled_after_sessions(openvino_file):
    """OpenVINO's CPU plugin changes the stack of signal handlers."""
    done = subprocess.run([sys.executable, '-c', FIRST_OUT_FIRST, str(openvino_file[0])], capture_output=True,
                          text=True)
    assert done.returncode == 0 and done.stdout.count('handled') == 1, done.stderr


def test_threads_share_a_session(openvino_file):
    session = runtime.OpenVinoSession(openvino_file[0], threads=1)
    batches = [as_input([composed_image(64, 96, seed)]) for seed in range(4)]
    expected = [session.run(batch)[0] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for got, own in zip(pool.map(lambda batch: session.run(batch)[0], batches * 5), expected * 5):
            np.testing.assert_array_equal(got, own)


def test_a_failed_scan_is_no_result(openvino_file, monkeypatch):
    out, portable = openvino_file
    session = runtime.OpenVinoSession(out)
    nothing = np.full((1, 3, 64, 96), np.nan, np.float32)
    if portable:
        session.run(nothing)
    else:
        with pytest.raises(runtime.RuntimeFileError, match='a compiled scan failed'):
            session.run(nothing)


def test_onnxruntime_says_what_runs_the_scans(exported, monkeypatch, tmp_path):
    library = runtime.find_library('libmmmamba_onnxruntime.so')
    assert runtime.Detector(exported[0]).scans == str(library or 'standard operators')
    monkeypatch.setattr(runtime, 'find_library', lambda name: None)
    detector = runtime.Detector(exported[0])
    assert detector.scans == 'standard operators'
    monkeypatch.undo()
    image = np.full((50, 90, 3), 90, np.uint8)
    np.testing.assert_allclose(detector(image).boxes, runtime.Detector(exported[0])(image).boxes, atol=1e-3)
    broken = tmp_path / 'libmmmamba_onnxruntime.so'
    broken.write_bytes(b'no library')
    monkeypatch.setattr(runtime, 'find_library', lambda name: broken)
    with pytest.raises(runtime.RuntimeFileError, match='libmmmamba_onnxruntime.so cannot be used'):
        runtime.Detector(exported[0])


def test_precisions_that_a_runtime_lacks(exported):
    with pytest.raises(runtime.RuntimeFileError, match='f32 on a CPU, not in bf16'):
        runtime.Detector(exported[0], precision='bf16')


def test_long_boxes_may_differ_by_what_float32_has(exported):
    network = exported[1]
    raw = torch.zeros(1, 4 + 3, 2)
    raw[:, 2:4] = torch.tensor([50.0, 500.0])
    wrong = raw.numpy().copy()
    wrong[:, 0] += [0.001, 0.005]
    assert exporter.differences(network, [wrong], [raw]) == {'boxes': pytest.approx(1e-3, rel=1e-4), 'scores': 0}
    rows = np.array([[0.0, 0.004, 500, 500, 0.5, 0]])  # after NMS, too
    output = np.zeros((4 + 3, 1))
    output[:5, 0] = 250, 250, 500, 500, 0.5
    found = exporter.suppression_differences(rows, output, NMS, (600, 600))
    assert found == {'boxes': pytest.approx(8e-4), 'scores': 0}
    wrong[:, 1, 0] += 0.002
    assert exporter.differences(network, [wrong], [raw])['boxes'] == pytest.approx(2e-3, rel=1e-4)


@pytest.mark.parametrize('name, suffix', [('onnx', '.onnx'), ('openvino', '.xml')])
def test_half_keeps_rounded_weights(name, suffix, tmp_path):
    network, out = exported_network(build_with_one_scan()), tmp_path / f'half{suffix}'
    make_exporter(name).export(network, out, ExportOptions((64, 96), portable=True, half=True), PREPROCESSING())
    rounded = rounded_to_half(network)
    if name == 'onnx':  # every matrix but A and the step sizes' biases
        weights = onnx.load(out).graph.initializer
        halves = [weight for weight in weights if weight.data_type == onnx.TensorProto.FLOAT16]
        assert sum(int(np.prod(weight.dims)) for weight in halves) > 0.8 * sum(
            parameter.numel() for parameter in network.parameters() if parameter.dim() > 1)
    else:
        assert out.read_text().count('element_type="f16"') > 20
    images = as_input([composed_image(64, 96, seed=5)])
    with torch.no_grad(), on_backend(rounded, None), on_backend(network, None):
        expected, unrounded = (each(torch.from_numpy(images))[0].numpy() for each in (rounded, network))
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
