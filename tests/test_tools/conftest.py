"""A thin detector on the composed rectangles, and the tools run as a user runs them."""
from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]

CONFIG = """
_base_ = '{root}/configs/mamba_yolo/mamba-yolo_t_1xb16-30e_bccd.py'
custom_imports = dict(imports=['mmmamba', 'loss_recorder'])
norm_cfg = dict(type='GN', num_groups=4)  # batch norms would see half a batch in each of two processes
model = dict(
    backbone=dict(arch=None, depths=(1, 1, 1, 1), widths=(8, 16, 16, 16), norm_cfg=norm_cfg),
    neck=dict(in_channels=[16, 16, 16], norm_cfg=norm_cfg),
    bbox_head=dict(in_channels=[16, 16, 16], norm_cfg=norm_cfg))
data = dict(data_root='{data}', metainfo=dict(classes=('square', 'wide', 'tall')))
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(dataset=dict(
        **data, ann_file='annotations/train.json', data_prefix=dict(img='train/'))))
val_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(**data, ann_file='annotations/val.json', data_prefix=dict(img='val/')))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{data}/annotations/val.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1))
custom_hooks = [*_base_.custom_hooks, dict(type='LossRecorder')]
"""


@pytest.fixture
def tiny_config(tmp_path: Path, shared_coco_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Path of the config; ``loss_recorder`` can be imported, here and in processes that are started."""
    monkeypatch.setenv('PYTHONPATH', f'{Path(__file__).parent}{os.pathsep}{ROOT}')
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    path = tmp_path / 'tiny.py'
    path.write_text(CONFIG.format(root=ROOT, data=shared_coco_folder))
    return path


@pytest.fixture
def tiny_checkpoint(tiny_config: Path, mmdet_scope: None) -> Path:
    """Weights of the tiny detector as it starts."""
    from mmdet.registry import MODELS
    from mmengine.config import Config

    path = tiny_config.with_name('epoch_1.pth')
    detector = MODELS.build(Config.fromfile(tiny_config).model)
    torch.save({'state_dict': detector.state_dict(), 'meta': {'epoch': 1, 'iter': 4}}, path)
    return path


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch):
    """A function that runs ``mmmamba NAME`` in this process, with arguments, and returns its exit status."""
    from mmengine.registry import DefaultScope

    from mmmamba import __main__ as program

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, 'argv', ['mmmamba', *map(str, arguments)])
        try:
            with DefaultScope.overwrite_default_scope('mmdet'):
                program.main()
        except SystemExit as end:
            return end.code or 0
        return 0

    return run


@pytest.fixture
def run_tool(monkeypatch: pytest.MonkeyPatch):
    """A function that runs tools/NAME.py in this process and returns its exit status."""
    from mmdet.visualization import DetLocalVisualizer
    from mmengine.logging import MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer

    from mmmamba import cli

    def run(name: str, *arguments: object) -> int:
        spec = importlib.util.spec_from_file_location(name, ROOT / 'tools' / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, arguments)])
        # A process has one of a name, which writes where the first run is.
        for kind in (DetLocalVisualizer, Visualizer, MMLogger):
            kind._instance_dict.clear()
        try:
            with DefaultScope.overwrite_default_scope('mmdet'):
                cli.run(module.main)
        except SystemExit as end:
            return end.code or 0
        return 0

    return run
