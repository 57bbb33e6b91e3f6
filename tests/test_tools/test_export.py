"""tools/deployment/export.py, and its file in tools/test.py."""
from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData

import mmmamba.deploy.export  # makes mmdet run without compiled mmcv
from mmmamba.commands.export import pad_value_of
from mmmamba.deploy.native.libraries import openvino_library
from mmmamba.engine.exported_detector import ExportedDetector

pytest.importorskip('onnxruntime')

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tiny_config, tmp_path):
    """The tiny detector without scans in its neck, with batch norms: ONNX Runtime's group norms lose digits."""
    path = tmp_path / 'batch_norm.py'
    norms = ', '.join(f"{part}=dict(norm_cfg=dict(_delete_=True, type='BN'))" for part in (
        'backbone', 'neck', 'bbox_head'))
    path.write_text(f'_base_ = {str(tiny_config)!r}\nmodel = dict({norms})\nmodel["neck"].update(ssm=False)\n')
    return path


@pytest.fixture
def checkpoint(config, run_tool, tmp_path):
    work_dir = tmp_path / 'train'
    assert run_tool('train', config, '--work-dir', work_dir) == 0
    return work_dir / 'epoch_2.pth'


def test_exported_file_has_the_ap_of_its_checkpoint(checkpoint, config, shared_coco_folder, run_tool, tmp_path,
                                                    capsys):
    for options, name in (([], 'raw'), (['--nms', '--portable'], 'nms')):
        out = tmp_path / f'{name}.onnx'
        assert run_tool('deployment/export', config, checkpoint, '--out', out, '--images',
                        shared_coco_folder / 'val', *options) == 0
        assert 'largest differences from PyTorch: boxes ' in capsys.readouterr().out
        assert run_tool('test', config, out, '--work-dir', tmp_path / 'test', '--out', tmp_path / name) == 0
    trained = checkpoint.with_name(config.name)  # the config that the training left, with its work dir in it
    text = trained.read_text()
    assert run_tool('test', trained, tmp_path / 'raw.onnx') == 0 and trained.read_text() == text
    assert run_tool('test', config, checkpoint, '--work-dir', tmp_path / 'test', '--out', tmp_path / 'torch') == 0
    image = next((shared_coco_folder / 'val').iterdir())
    for name, weights in (('file', tmp_path / 'raw.onnx'), ('checkpoint', checkpoint)):
        assert run_tool('image_demo', image, config, weights, '--out-dir', tmp_path / name, '--score-thr', 0.001) == 0
        assert run_tool('image_demo', image, '--weights', weights, '--out-dir', tmp_path / f'{name}_alone',
                        '--score-thr', 0.001) == 0
    found, own, *alone = (json.loads((tmp_path / name / 'preds' / f'{image.name}.json').read_text())
                          for name in ('file', 'checkpoint', 'file_alone', 'checkpoint_alone'))
    assert alone == [found, own]
    assert len(own['scores']) > 3 and len(found['scores']) == len(own['scores'])
    assert found['scores'] == pytest.approx(own['scores'], abs=2e-4)  # four digits are written
    raw, nms, expected = (json.loads((tmp_path / f'{name}.metrics.json').read_text())
                          for name in ('raw', 'nms', 'torch'))
    assert raw == pytest.approx(expected, abs=1e-3) and nms == pytest.approx(expected, abs=1e-3)


def test_int8_and_its_ap(checkpoint, config, shared_coco_folder, run_tool, tmp_path, capsys):
    pytest.importorskip('nncf')
    out = tmp_path / 'int8.xml'
    arguments = ['--format', 'openvino']
    if openvino_library().path is None:
        arguments.append('--portable')
    absent = 'test_dataloader.dataset.ann_file=none.json'
    for problem, options in (('', ['--data', shared_coco_folder, '--int8']),  # on its training set
                             ('none.json', ['--int8', shared_coco_folder / 'val', '--cfg-options', absent])):
        assert run_tool('deployment/export', config, checkpoint, '--out', out, *arguments, *options) == 0
        line = capsys.readouterr().out.splitlines()[-1]
        if problem:
            assert 'AP was not measured' in line and problem in line and 'mean of boxes' in line
        else:
            assert run_tool('test', config, out, '--work-dir', tmp_path / 'test', '--out', tmp_path / 'int8') == 0
            ap = json.loads((tmp_path / 'int8.metrics.json').read_text())['coco/bbox_mAP']
            assert f'coco/bbox_mAP {ap:.3f} in int8' in line
            capsys.readouterr()
    assert {path.suffix for path in tmp_path.glob('*int8*')} == {'.xml', '.bin', '.json'}


def test_boxes_in_the_padding_are_none():
    from mmdet.structures import DetDataSample

    detector = ExportedDetector.__new__(ExportedDetector)  # without a file
    settings = ConfigDict(min_bbox_size=0, max_per_img=9, nms=dict(type='nms', iou_threshold=0.7))
    detector.__dict__.update(has_nms=False, test_cfg=settings)
    found = InstanceData(bboxes=torch.tensor([[2., 2, 8, 8], [2, 30, 8, 40]]), scores=torch.tensor([0.5, 0.9]),
                         labels=torch.zeros(2, dtype=torch.long))
    sample = DetDataSample(metainfo=dict(img_shape=(20, 40), ori_shape=(40, 80), scale_factor=(0.5, 0.5)))
    kept = detector._finish(found, sample, rescale=True)
    assert kept.bboxes.tolist() == [[4, 4, 16, 16]] and kept.scores.tolist() == [0.5]


@pytest.mark.parametrize('config, value', [
    ('odss_pafpn/swin-t_odss-pafpn_8xb16-300e_coco.py', 114), ('mamba_yolo/mamba-yolo_t_8xb64-300e_coco.py', 114),
    ('od_mamba/retinanet_od-mamba-t_fpn_1x_coco.py', 0)])
def test_padding_is_that_of_the_test_pipeline(config, value):
    assert pad_value_of(Config.fromfile(ROOT / 'configs' / config)) == value


class WithoutNncf:
    """A finder for ``sys.meta_path`` that hides nncf."""

    def find_spec(self, name, path=None, target=None):
        if name == 'nncf':
            raise ModuleNotFoundError("No module named 'nncf'", name='nncf')


def test_bad_input(checkpoint, config, run_tool, tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, 'mmmamba.deploy.export.quantize', raising=False)
    monkeypatch.delattr(mmmamba.deploy.export, 'quantize', raising=False)
    monkeypatch.delitem(sys.modules, 'nncf', raising=False)
    monkeypatch.setattr(sys, 'meta_path', [WithoutNncf(), *sys.meta_path])
    int8 = [checkpoint, '--out', tmp_path / 'a.xml', '--int8', tmp_path, '--format']
    broken = tmp_path / 'broken.onnx'
    broken.write_bytes(b'no model')
    for tool, arguments, problem in (
        ('deployment/export', [checkpoint, '--out', tmp_path / 'a.onnx', '--size', 100, 64], 'multiples of 32'),
        ('deployment/export', [checkpoint, '--out', tmp_path / 'a.onnx', '--size', -32, 64, '--images', tmp_path],
         'multiples of 32'),
        ('deployment/export', [checkpoint, '--out', tmp_path / 'a.onnx', '--nms', '--cfg-options',
                               'model.test_cfg.nms.type=soft_nms'], 'soft_nms, files can have nms alone'),
        ('deployment/export', [*int8, 'onnx'], '--int8 is for --format openvino'),
        ('deployment/export', [checkpoint, '--int8', tmp_path, '--format', 'openvino', '--portable', '--out',
                               tmp_path / 'none' / 'a.xml'], 'there is no folder'),
        ('deployment/export', [*int8, 'openvino'], 'nncf is not installed: pip install mmmamba[int8]'),
        ('test', [broken, '--work-dir', tmp_path / 'test'], 'cannot be read'),
        ('test', [broken, '--work-dir', tmp_path / 'test', '--tta'], '--tta needs a checkpoint'),
        ('test', [broken, '--work-dir', tmp_path / 'test', '--launcher', 'pytorch'], 'without --launcher'),
    ):
        assert run_tool(tool, config, *arguments) == 2
        assert problem in capsys.readouterr().err
    stages = tmp_path / 'stages.py'
    model = 'dict(test_cfg=dict(_delete_=True, rpn=dict(nms_pre=1000)))'
    stages.write_text(f'_base_ = {str(config)!r}\nmodel = {model}\n')
    for tool, arguments, problem in (
        ('deployment/export', [checkpoint, '--out', tmp_path / 'a.onnx', '--nms'], 'no score_thr'),
        ('test', [broken, '--work-dir', tmp_path / 'test'], 'chooses its boxes in several stages'),
    ):
        assert run_tool(tool, stages, *arguments) == 2
        assert problem in capsys.readouterr().err
