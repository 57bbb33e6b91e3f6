"""Exported files in programs that are not ours: ONNX's checker, OpenCV, and Ultralytics where it is installed.

The programs run in processes of their own: they may crash, and Ultralytics changes functions of PyTorch and OpenCV.
"""
from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('onnxruntime')

import onnx
from small_detector import build

from mmmamba.deploy.export import ExportOptions, Preprocessing, Suppression, exported_network, make_exporter, runtime
from mmmamba.deploy.export.exporter import as_input, composed_image
from mmmamba.models.dense_heads.mask_assembly import masks_val_json

SIZE = (64, 96)
CLASSES = ('square', "painter's", 'tall')
CONTROL = dict(
    backbone=dict(type='YOLOv8CSPDarknet', arch='n'),
    neck=dict(type='YOLOv8PAFPN', in_channels=[64, 128, 256], num_blocks=1),
    bbox_head=dict(type='YOLOv8Head', num_classes=3, in_channels=[64, 128, 256]))
NECK_WITHOUT_SCANS = dict(neck=dict(type='ODSSPAFPN', in_channels=(16, 16, 32), ssm=False))  # exported sooner
MASKS = dict(bbox_head=dict(type='YOLOv8InsHead', num_classes=3, in_channels=(16, 16, 32)))
OPENCV = """
import sys, cv2, numpy as np
net = cv2.dnn.readNetFromONNX(sys.argv[1])
net.setInput(np.load(sys.argv[2]))
np.save(sys.argv[3], net.forward())
"""
ULTRALYTICS = """
import sys, numpy as np
from ultralytics import YOLO
path, images, out, task = sys.argv[1:]
images = list(np.load(images))
found = YOLO(path, task=task).predict(images, imgsz=images[0].shape[:2], conf=0.1, iou=1, device='cpu', verbose=False)
masks = {} if task == 'detect' else {'masks': found[0].masks.data.numpy()}
np.savez(out, *[each.boxes.data.numpy() for each in found], names=list(found[0].names.values()), **masks)
"""


def export(out, model=None, **options):
    """Writes a detector's file; the detector's scores and boxes are all over the range."""
    detector = build(std=0.3, **{**NECK_WITHOUT_SCANS, **(model or {})})
    for branch in detector.bbox_head.reg_branches:
        torch.nn.init.normal_(branch[-1].weight, std=0.02)
    for layer in detector.modules():  # statistics of pictures
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1
    with torch.no_grad():
        detector.train().bbox_head(detector.extract_feat(torch.from_numpy(
            as_input([composed_image(*SIZE, seed) for seed in range(8)]))))
    make_exporter('onnx').export(exported_network(detector), out, ExportOptions(SIZE, **options),
                                 Preprocessing(114, CLASSES))
    return out


def run_elsewhere(program, path, inputs, out, *arguments):
    """Runs a program that reads a file and inputs, and returns what it saves."""
    np.save(out.with_name('inputs.npy'), inputs)
    offline = dict(YOLO_CONFIG_DIR=str(out.parent), YOLO_OFFLINE='true', YOLO_AUTOINSTALL='false')
    subprocess.run([sys.executable, '-c', program, str(path), str(out.with_name('inputs.npy')), str(out), *arguments],
                   check=True, env={**os.environ, **offline}, cwd=out.parent)
    return np.load(out)


@pytest.fixture(scope='module')
def portable(tmp_path_factory):
    return export(tmp_path_factory.mktemp('export') / 'portable.onnx', portable=True)


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    return export(tmp_path_factory.mktemp('export') / 'plain.onnx')


@pytest.mark.parametrize('name', ['plain', 'portable'])
def test_files_are_valid_and_for_old_runtimes(name, request):
    path = request.getfixturevalue(name)
    onnx.checker.check_model(str(path), full_check=True)  # with shapes
    model = onnx.load(path)
    assert model.ir_version == 8  # ONNX Runtime 1.17 reads up to 9
    assert not any(node.metadata_props for node in model.graph.node)
    assert b'site-packages' not in path.read_bytes()


def assert_opencv_agrees(path, tmp_path):
    pixels = as_input([composed_image(*SIZE, seed=5)])
    expected = runtime.OnnxSession(path).run(pixels)[0]
    assert expected[:, 4:].max() > 0.3
    got = run_elsewhere(OPENCV, path, pixels, tmp_path / 'out.npy')
    np.testing.assert_allclose(got[:, :4], expected[:, :4], rtol=0, atol=1e-3)
    np.testing.assert_allclose(got[:, 4:], expected[:, 4:], rtol=0, atol=1e-5)


@pytest.mark.skipif(int(cv2.__version__.split('.')[0]) < 5, reason='tried with OpenCV 5 alone')
def test_yolov8_in_opencv(tmp_path):
    assert_opencv_agrees(export(tmp_path / 'control.onnx', CONTROL), tmp_path)


@pytest.mark.xfail(strict=True, raises=subprocess.CalledProcessError, reason='OpenCV 5.0.0 has no Scan')
def test_mamba_yolo_in_opencv(portable, tmp_path):
    assert_opencv_agrees(portable, tmp_path)


@pytest.mark.skipif(find_spec('ultralytics') is None, reason='Ultralytics is not installed')
@pytest.mark.parametrize('name, count, size', [
    ('plain', 1, SIZE), ('portable', 1, SIZE), ('masks', 1, SIZE), ('suppressed', 2, (96, 160))])
def test_ultralytics_finds_the_same_boxes(name, count, size, request, tmp_path):
    if name in ('plain', 'portable'):
        path = request.getfixturevalue(name)
    else:
        options = dict(model=MASKS) if name == 'masks' else dict(
            dynamic=True, suppression=Suppression(score_thr=0.1, iou_threshold=0.5, max_per_img=20))
        path = export(tmp_path / f'{name}.onnx', **options)
    images = [composed_image(*size, seed=seed) for seed in range(5, 5 + count)]
    outputs = runtime.OnnxSession(path).run(as_input(images))
    bgr = np.stack(images)[..., ::-1]
    task = 'segment' if name == 'masks' else 'detect'
    found = run_elsewhere(ULTRALYTICS, path, bgr, tmp_path / 'out.npz', task)
    assert found['names'].tolist() == list(CLASSES)
    for i, output in enumerate(outputs[0]):
        rows = found[f'arr_{i}']
        if name == 'suppressed':
            expected = output[output[:, 4] > 0.1]
        else:  # the best class of every cell
            scores = output[4:7].max(0)
            cells = np.argsort(-scores, kind='stable')[:int((scores > 0.1).sum())]
            centre, sides = output[:2, cells].T, output[2:4, cells].T
            corners = np.hstack([centre - sides / 2, centre + sides / 2]).clip(0, [*size[::-1]] * 2)
            expected = np.column_stack([corners, scores[cells], output[4:7, cells].argmax(0)])
        if name == 'masks':  # it leaves out boxes whose mask is empty, and rounds boxes before it crops
            coefficients, prototypes = (torch.from_numpy(each) for each in (output[7:, cells].T, outputs[1][0]))
            masks = masks_val_json(coefficients, prototypes, torch.from_numpy(corners), size).numpy()
            kept = np.abs(scores[cells] - rows[:, 4:5]).argmin(1)
            assert (found['masks'] == masks[kept]).mean() > 0.97 and len(kept) > 0.9 * len(cells)
            expected = expected[kept]
        assert len(rows) == len(expected) > 5
        np.testing.assert_allclose(rows[:, :4], expected[:, :4], rtol=0, atol=1e-3)
        np.testing.assert_allclose(rows[:, 4:], expected[:, 4:], rtol=0, atol=1e-5)
