"""The command line tool, from a pickled reference model to a detector that has its weights."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.runner import load_checkpoint
from parity_weights import state_dict

import mmmamba  # noqa: F401  (registers the models)

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools/model_converters/convert_weights.py'
MAKE_MODEL = """
import sys, torch
from torch import nn

class DetectionModel(nn.Module):
    pass

if __name__ == '__main__':
    import fake_yolo
    root = fake_yolo.DetectionModel()
    for name, tensor in torch.load(sys.argv[1]).items():
        module, (*path, leaf) = root, name.split('.')
        for part in path:
            if part not in module._modules:
                module.add_module(part, fake_yolo.DetectionModel())
            module = module._modules[part]
        if tensor.is_floating_point() and 'running' not in leaf:
            module.register_parameter(leaf, nn.Parameter(tensor))
        else:
            module.register_buffer(leaf, tensor)
    torch.save({'model': root.half(), 'ema': None}, sys.argv[2])
"""


@pytest.fixture
def tool(run_script):
    return partial(run_script, TOOL)


@pytest.fixture
def reference():
    shapes = json.loads((ROOT / 'tests/data/yolov8n.shapes.json').read_text())
    return {name: torch.from_numpy(value) for name, value in state_dict(shapes).items()}


def test_pickled_model_becomes_a_checkpoint(tmp_path, tool, reference, capsys):
    (tmp_path / 'fake_yolo.py').write_text(MAKE_MODEL)
    torch.save(reference, tmp_path / 'state_dict.pt')
    subprocess.run([sys.executable, tmp_path / 'fake_yolo.py', tmp_path / 'state_dict.pt', tmp_path / 'yolov8n.pt'],
                   check=True, env={**os.environ, 'PYTHONPATH': str(tmp_path)})
    assert tool('yolov8', tmp_path / 'yolov8n.pt', tmp_path / 'out.pth') == 0
    summary = '355 tensors, 3,157,200 parameters, from its model, 298 upcast from half precision'
    assert capsys.readouterr().out == f'{tmp_path}/out.pth: {summary}\n'

    channels = [64, 128, 256]
    model = MODELS.build(dict(
        type='SingleStageDetector',
        backbone=dict(type='YOLOv8CSPDarknet', arch='n'),
        neck=dict(type='YOLOv8PAFPN', in_channels=channels),
        bbox_head=dict(type='YOLOv8Head', num_classes=80, in_channels=channels)))
    checkpoint = load_checkpoint(model, str(tmp_path / 'out.pth'), map_location='cpu', strict=True)
    assert checkpoint['meta']['converted_from'] == 'yolov8'
    stem = reference['model.0.conv.weight']
    assert torch.equal(model.backbone.stem.conv.weight, stem.half().float())


def test_errors_are_one_line_and_nothing_is_written(tmp_path, tool, reference, capsys):
    torch.save(reference, tmp_path / 'yolov8n.pt')
    cases = {
        ('mamba-yolo', 'yolov8n.pt'): 'it looks like yolov8',
        ('yolov8', 'absent.pt'): 'No such file',
    }
    for (system, source), message in cases.items():
        assert tool(system, tmp_path / source, tmp_path / 'out.pth') == 2
        error = capsys.readouterr().err
        assert error.startswith('error: ') and message in error and error.count('\n') == 1
    assert tool('yolov8', tmp_path / 'yolov8n.pt', tmp_path / 'no/such/folder.pth') == 2
    assert 'cannot write' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['yolov8n.pt']
