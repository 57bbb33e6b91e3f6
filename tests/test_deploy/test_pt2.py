"""Detectors as .pt2 files: programs of torch.export, and packages of AOTInductor."""
from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import NMS, export, run_pytorch
from small_detector import ALONE, build, build_with_one_scan

from mmmamba.deploy.export import exported_network, runtime
from mmmamba.deploy.export.exporter import as_input, composed_image, suppression_differences
from mmmamba.errors import InputError

pytestmark = pytest.mark.needs_torch('2.13', 'writes programs with loops')


def detector():
    return build_with_one_scan(neck=None)


def expected(images):
    return run_pytorch(exported_network(detector()), images)


@pytest.fixture(scope='module')
def program(tmp_path_factory):
    """A program for open sizes, boxes chosen."""
    out = tmp_path_factory.mktemp('program') / 'program.pt2'
    export(detector(), out, 'torch-export', size=(64, 96), dynamic=True, suppression=NMS)
    return out


@pytest.fixture(scope='module')
def package(tmp_path_factory):
    """Machine code for 64 x 96."""
    out = tmp_path_factory.mktemp('package') / 'package.pt2'
    export(detector(), out, 'aoti', size=(64, 96))
    return out


def test_program_of_open_sizes(program):
    images = as_input([composed_image(160, 32, seed=seed) for seed in range(3)])
    session = runtime.TorchSession(program)
    rows = session.run(images)[0]
    assert not session.compiled and rows.shape == (3, 20, 6)
    assert session.shape == ['batch', 3, 'height', 'width'] and session.metadata['torch'] == torch.__version__
    for image, output in zip(rows, expected(images)):
        found = suppression_differences(image, output, NMS, (160, 32))
        assert found['boxes'] <= 1e-3 and found['scores'] <= 1e-5 and (image[:, 4] > 0).sum() > 5
    with pytest.raises(runtime.RuntimeFileError, match='multiples of 16'):
        session.run(np.zeros((1, 3, 40, 64), np.float32))


def test_package(package):
    images = as_input([composed_image(64, 96, seed=5)])
    session = runtime.TorchSession(package)
    got = session.run(images)[0]
    assert json.loads(session.metadata['letterbox'])['pad_value'] == 114
    assert session.compiled and got.shape == (1, 4 + 3, 8 * 12 + 4 * 6)
    np.testing.assert_allclose(got[:, :4], expected(images)[:, :4], rtol=0, atol=1e-3)
    np.testing.assert_allclose(got[:, 4:], expected(images)[:, 4:], rtol=0, atol=1e-5)
    turned = np.asfortranarray(images)
    np.testing.assert_array_equal(session.run(turned)[0], got)
    with pytest.raises(runtime.RuntimeFileError, match='inputs of'):
        session.run(np.zeros((1, 3, 32, 32), np.float32))


def run_alone(file, *missing):
    return subprocess.run([sys.executable, '-c', ALONE, str(Path(runtime.__file__)), str(file), *missing],
                          capture_output=True, text=True)


@pytest.mark.parametrize('kind', ['program', 'package'])
def test_files_need_pytorch_alone(kind, request):
    file = request.getfixturevalue(kind)
    done = run_alone(file)
    assert done.returncode == 0 and done.stdout.startswith('found ') and not done.stderr, done.stderr


def test_files_without_pytorch(program):
    assert run_alone(program, 'torch').stderr == 'torch is not installed: pip install torch\n'


@pytest.mark.parametrize('kind', ['program', 'package'])
def test_damaged_files(kind, request, tmp_path):
    file = request.getfixturevalue(kind)
    short, foreign, broken = tmp_path / 'short.pt2', tmp_path / 'foreign.pt2', tmp_path / 'broken.pt2'
    short.write_bytes(file.read_bytes()[:1000])
    with zipfile.ZipFile(foreign, 'w') as made:
        made.writestr('archive/models/model.json', '{}')
    with zipfile.ZipFile(file) as given, zipfile.ZipFile(broken, 'w') as made:
        for name in given.namelist():  # what is kept is whole, the program is not
            made.writestr(name, given.read(name) if '/extra/' in name or name.endswith('version') else b'')
    for path, problem in ((short, 'damaged, or was not exported by mmmamba'), (foreign, 'was not exported by mmmamba'),
                          (broken, 'of PyTorch 2.* cannot be read'), (tmp_path / 'none.pt2', 'is no file')):
        with pytest.raises(runtime.RuntimeFileError, match=problem) as caught:
            runtime.Detector(path)
        assert '\n' not in str(caught.value)


def test_what_cannot_be_exported(tmp_path, monkeypatch):
    out = tmp_path / 'a.pt2'
    for options, problem in ((dict(dynamic=True), '--dynamic is not for --format aoti'),
                             (dict(size=(60, 96)), 'multiples of 16')):
        with pytest.raises(InputError, match=problem):
            export(detector(), out, 'aoti', **{'size': (64, 96), **options})
    for path, problem in ((tmp_path / 'none' / 'a.pt2', 'there is no folder'), (tmp_path / 'a.onnx', 'must end with')):
        with pytest.raises(InputError, match=problem):
            export(detector(), path, 'torch-export', size=(64, 96))
    out.mkdir()
    with pytest.raises(InputError, match='is a folder'):
        export(detector(), out, 'torch-export', size=(64, 96))
    out.rmdir()
    monkeypatch.setattr('torch._inductor.config.cpp.cxx', ('no-such-compiler',))
    with pytest.raises(InputError, match='needs a C'):
        export(detector(), out, 'aoti', size=(64, 96))
    assert not list(tmp_path.glob('*.pt2'))


def test_windows_of_open_sizes(tmp_path):
    """The map of the last stage has one window in the example that is traced, unless that is large."""
    detector = build(backbone=dict(type='LocalVMamba', arch=None, widths=(8, 8, 8, 8), depths=(1, 1, 1, 1),
                                   directions=[('h', 'w7')] * 4),
                     neck=None, bbox_head=dict(type='YOLOv8Head', num_classes=3, in_channels=(8, 8, 8)))
    del detector.bbox_head
    for stage in range(3):
        detector.backbone.stages[stage] = torch.nn.Identity()
    out = tmp_path / 'windows.pt2'
    export(detector, out, 'torch-export', size=(64, 96), dynamic=True)
    images = as_input([composed_image(512, 320, seed=5)])  # 4 x 2 windows
    with torch.no_grad():
        expected = detector.eval().extract_feat(torch.from_numpy(images))
    for found, value in zip(runtime.TorchSession(out).run(images), expected):
        torch.testing.assert_close(torch.from_numpy(found), value, rtol=1e-4, atol=1e-5 * float(value.abs().max()))
