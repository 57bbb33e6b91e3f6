"""YOLOv8's masks from a folder of polygons through tools/train.py --data, test.py --tta and image_demo.py."""
from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from composed_instances import compose_instances
from pycocotools import mask as mask_util

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
_base_ = '{root}/configs/mamba_yolo/mamba-yolo-seg_t_8xb64-300e_coco.py'
model = dict(
    backbone=dict(arch=None, depths=(1, 1, 1, 1), widths=(8, 16, 16, 16)),
    neck=dict(in_channels=[16, 16, 16]),
    bbox_head=dict(in_channels=[16, 16, 16]),
    test_cfg=dict(score_thr=0.0, max_per_img=10))
"""
OPTIONS = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'default_hooks.logger.interval=1',
           *(f'{loader}_dataloader.{key}' for loader in ('train', 'val', 'test')
             for key in ('num_workers=0', 'persistent_workers=False', 'batch_size=2'))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = compose_instances(tmp_path / 'data', images=4)
    return compose_instances(root, images=2, size=(140, 112), split='val', seed=1)


def test_a_folder_of_polygons(folder, run_tool, tmp_path):
    config, run = tmp_path / 'thin.py', tmp_path / 'run'
    config.write_text(CONFIG.format(root=ROOT))
    assert run_tool('train', config, '--data', folder, '--work-dir', run, '--amp', 'bfloat16',
                    '--cfg-options', *OPTIONS) == 0
    log = next(run.glob('*/vis_data/*.json')).read_text()
    entries = [json.loads(line) for line in log.splitlines()]
    losses = [entry['loss_mask'] for entry in entries if 'loss_mask' in entry]
    assert len(losses) == 2 and np.isfinite(losses).all()
    assert 0 <= entries[-1]['coco/segm_mAP_50'] <= 1 and 0 <= entries[-1]['coco/bbox_mAP_50'] <= 1

    checkpoint, prefix = run / 'epoch_1.pth', tmp_path / 'results'
    for options in ([], ['--tta'], ['--show-dir', 'shown']):
        assert run_tool('test', config, checkpoint, '--data', folder, '--work-dir', tmp_path / 'test', '--out', prefix,
                        *options, '--cfg-options', *OPTIONS[3:]) == 0
        results = json.loads(Path(f'{prefix}.segm.json').read_text())
        assert results and all(result['segmentation']['size'] == [112, 140] for result in results)
    assert len(list((tmp_path / 'test').glob('*/shown/*'))) > 0

    written = next(run.glob('*.py'))  # the config of this run, with the folder's classes
    image = folder / 'val/000001.png'
    assert run_tool('image_demo', image, written, checkpoint, '--out-dir', tmp_path / 'demo', '--score-thr', 0,
                    '--device', 'cpu') == 0
    found = json.loads((tmp_path / f'demo/preds/{image.name}.json').read_text())
    assert len(found['masks']) == len(found['bboxes']) > 0
    assert all(mask_util.decode(mask).shape == cv2.imread(str(image)).shape[:2] for mask in found['masks'])
