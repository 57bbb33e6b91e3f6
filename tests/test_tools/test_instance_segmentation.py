"""Masks, from polygons through tools/train.py, test.py and image_demo.py to what they write and draw."""
from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from composed_instances import CLASSES, compose_instances
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from pycocotools import mask as mask_util

from mmmamba.analysis.inference import Detector

ROOT = Path(__file__).resolve().parents[2]
FRUITS_AND_NUTS = ROOT.parent / 'shared/data/fruits_nuts'
BASE = ROOT / 'configs/efficient_vmamba/mask-rcnn_efficient-vmamba-t_fpn_1xb2_fruits-nuts.py'

# What has learnt so little finds something all the same, with a threshold of 0.
THIN = {
    'model.backbone': dict(arch=None, depths=(1, 1, 1, 1), widths=(8, 16, 24, 32)),
    'model.neck.in_channels': [8, 16, 24, 32],
    'model.roi_head.bbox_head.fc_out_channels': 16,
    'model.roi_head.mask_head.num_convs': 1,
    'model.test_cfg.rcnn': dict(score_thr=0.0, max_per_img=5),
    'train_cfg': dict(max_epochs=2, val_interval=2),
    'default_hooks.checkpoint.interval': 2,
    **{f'{loader}.{key}': value for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')
       for key, value in (('num_workers', 0), ('persistent_workers', False))},
}


def use_data(cfg: Config, size: tuple[int, int], **dataset: object) -> None:
    """Has the config train and test with these settings of the data set, at this width and height."""
    for loader, resize in ((cfg.train_dataloader, 2), (cfg.val_dataloader, 1), (cfg.test_dataloader, 1)):
        loader.dataset.update(dataset)
        assert loader.dataset.pipeline[resize].type == 'Resize'
        loader.dataset.pipeline[resize].scale = size


@pytest.fixture(params=['composed', 'fruits_nuts'])
def config_and_image(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A config of a thin model and two epochs, and an image of its data set."""
    monkeypatch.setenv('FRUITS_NUTS', str(FRUITS_AND_NUTS))
    cfg = Config.fromfile(BASE)
    cfg.merge_from_dict(THIN)
    if request.param == 'composed':
        data = compose_instances(tmp_path / 'data')
        use_data(cfg, (80, 64), data_root=str(data), ann_file='annotations/train.json', metainfo=dict(classes=CLASSES),
                 data_prefix=dict(img='train/'))
        cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = str(data / 'annotations/train.json')
        image = data / 'train/000001.png'
    else:
        if not FRUITS_AND_NUTS.is_dir():
            pytest.skip(f'needs {FRUITS_AND_NUTS}')
        use_data(cfg, (80, 60), indices=4)
        image = FRUITS_AND_NUTS / 'images/1.jpg'
    cfg.visualizer.name = request.param  # a process has one visualiser of a name
    cfg.dump(tmp_path / 'thin.py')
    return tmp_path / 'thin.py', image


def test_masks_are_trained_measured_written_and_drawn(config_and_image, run_tool, tmp_path):
    config, image = config_and_image
    assert run_tool('train', config, '--work-dir', tmp_path / 'run') == 0
    checkpoint = tmp_path / 'run/epoch_2.pth'
    log = next((tmp_path / 'run').glob('*/vis_data/*.json')).read_text()
    entries = [json.loads(line) for line in log.splitlines()]
    losses = [entry['loss_mask'] for entry in entries if 'loss_mask' in entry]
    assert losses and np.isfinite(losses).all()
    assert 0 <= entries[-1]['coco/segm_mAP_50'] <= 1 and 0 <= entries[-1]['coco/bbox_mAP_50'] <= 1

    prefix = tmp_path / 'results/thin'
    assert run_tool('test', config, checkpoint, '--work-dir', tmp_path / 'test', '--out', prefix,
                    '--show-dir', 'shown') == 0
    for kind, shape in (('bbox', 'bbox'), ('segm', 'segmentation')):
        results = json.loads(Path(f'{prefix}.{kind}.json').read_text())
        assert results and all(shape in result for result in results)
    assert {'coco/bbox_mAP_50', 'coco/segm_mAP_50'} <= json.loads(Path(f'{prefix}.metrics.json').read_text()).keys()
    assert len(list((tmp_path / 'test').glob('*/shown/*'))) > 0

    assert run_tool('image_demo', image, config, checkpoint, '--out-dir', tmp_path / 'demo', '--score-thr', 0,
                    '--device', 'cpu') == 0
    height, width = cv2.imread(str(image)).shape[:2]
    found = json.loads((tmp_path / f'demo/preds/{image.name}.json').read_text())
    assert len(found['masks']) == len(found['bboxes']) > 0
    assert all(mask_util.decode(mask).shape == (height, width) for mask in found['masks'])
    check_one_mask(Detector(Config.fromfile(config), checkpoint, torch.device('cpu')))


def check_one_mask(detector: Detector) -> None:
    """That a known mask is drawn where it is, and comes back from the plain data."""
    mask = np.zeros((60, 80), np.uint8)
    cv2.fillPoly(mask, [np.array([(10, 10), (60, 20), (20, 50)])], 1)
    found = dict(bboxes=[[10, 10, 60, 50], [0, 0, 5, 5]], scores=[0.9, 0.1], labels=[1, 0])
    sample = DetDataSample(pred_instances=InstanceData(
        **{key: torch.tensor(value) for key, value in found.items()},
        masks=torch.from_numpy(np.stack([mask, 1 - mask])).bool()))
    chosen = detector.choose(sample, 0.3)
    changed = (detector.draw(np.full((60, 80, 3), 128, np.uint8), chosen) != 128).any(axis=-1)
    # The label is in the upper part of the box, and may be wider.
    assert changed[mask == 1].all() and not changed[53:].any() and not changed[25:, 63:].any()
    encoded, = detector.describe(chosen)['masks']
    assert (mask_util.decode(encoded) == mask).all()
