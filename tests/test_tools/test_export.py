"""tools/deployment/export.py, and its file in tools/test.py."""
from __future__ import annotations

import json

import pytest

pytest.importorskip('onnxruntime')


@pytest.fixture
def checkpoint(tiny_config, run_tool, tmp_path):
    work_dir = tmp_path / 'train'
    assert run_tool('train', tiny_config, '--work-dir', work_dir) == 0
    return work_dir / 'epoch_2.pth'


def test_exported_file_has_the_ap_of_its_checkpoint(checkpoint, tiny_config, shared_coco_folder, run_tool, tmp_path,
                                                    capsys):
    for options, name in (([], 'raw'), (['--nms', '--portable'], 'nms')):
        out = tmp_path / f'{name}.onnx'
        assert run_tool('deployment/export', tiny_config, checkpoint, '--out', out, '--images',
                        shared_coco_folder / 'val', *options) == 0
        assert 'largest differences from PyTorch: boxes ' in capsys.readouterr().out
        assert run_tool('test', tiny_config, out, '--work-dir', tmp_path, '--out', tmp_path / name) == 0
    assert run_tool('test', tiny_config, checkpoint, '--work-dir', tmp_path, '--out', tmp_path / 'torch') == 0
    raw, nms, expected = (json.loads((tmp_path / f'{name}.metrics.json').read_text())
                          for name in ('raw', 'nms', 'torch'))
    assert raw == pytest.approx(expected, abs=1e-3) and nms == pytest.approx(expected, abs=1e-3)


def test_bad_input(checkpoint, tiny_config, run_tool, tmp_path, capsys):
    broken = tmp_path / 'broken.onnx'
    broken.write_bytes(b'no model')
    for tool, arguments, problem in (
        ('deployment/export', [checkpoint, '--out', tmp_path / 'a.onnx', '--size', 100, 64], 'multiples of 32'),
        ('test', [broken, '--work-dir', tmp_path], 'cannot be read'),
        ('test', [broken, '--work-dir', tmp_path, '--tta'], '--tta needs a checkpoint'),
    ):
        assert run_tool(tool, tiny_config, *arguments) == 2
        assert problem in capsys.readouterr().err
