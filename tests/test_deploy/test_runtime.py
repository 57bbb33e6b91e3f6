"""runtime.py: exported files on pictures, without PyTorch or this package."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('onnxruntime')

import onnx
from mmengine.registry import init_default_scope
from small_detector import ALONE

from mmmamba.deploy.export import runtime


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
