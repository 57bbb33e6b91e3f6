"""A data set and a config that a test can train in seconds."""
from __future__ import annotations

from pathlib import Path

from mmmamba.datasets.composed import Composition, compose

ROOT = Path(__file__).resolve().parents[2]
COMPOSITION = Composition(train_images=4, val_images=3, image_size=96, digits=(1, 2), digit_size=(32, 48))


def compose_tiny(folder: Path) -> Path:
    """Writes the data set and returns its root."""
    compose(folder / 'data', COMPOSITION)
    return folder / 'data'


def write_tiny_config(folder: Path) -> Path:
    """Writes a config of a thin Mamba YOLO, one epoch long, and returns its path."""
    path = folder / 'tiny.py'
    path.write_text(f"""
_base_ = '{ROOT}/configs/mamba_yolo/mamba-yolo_t_demo.py'
model = dict(
    backbone=dict(arch=None, depths=(1, 1, 1, 1), widths=(8, 16, 16, 16)),
    neck=dict(in_channels=[16, 16, 16]),
    bbox_head=dict(in_channels=[16, 16, 16]),
    test_cfg=dict(max_per_img=10))
train_cfg = dict(max_epochs=1, val_interval=1)
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
default_hooks = dict(logger=dict(interval=1))
""")
    return path
