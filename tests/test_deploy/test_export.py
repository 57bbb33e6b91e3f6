"""Detectors as ONNX files, equal to PyTorch."""
from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip('onnxruntime')

import onnx
from exporting import NMS, assert_equals_pytorch, export, run_pytorch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from small_detector import build, build_with_one_scan

from mmmamba.deploy.export import (
    ExportOptions,
    Preprocessing,
    exported_network,
    exporter,
    make_exporter,
    runtime,
)
from mmmamba.deploy.export import network as network_module
from mmmamba.deploy.export.exporter import as_input, composed_image
from mmmamba.errors import InputError


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
    for image, output in zip(rows, run_pytorch(network, images)):
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
