"""Detections lie inside the picture, whatever its shape, on every path that gives them."""
from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import mmmamba  # noqa: F401  (before mmdet's models, which it makes run without compiled mmcv)

# isort: split
import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.apis import DetInferencer
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import nn

from mmmamba.analysis.inference import Detector
from mmmamba.model_config import drop_pretrained
from mmmamba.recipes import under_recipe

pytestmark = pytest.mark.usefixtures('mmdet_scope')
CONFIGS = Path(__file__).parents[1] / 'configs'
# Width and height: portrait, landscape, 1:5, smaller and larger than the scale, no multiples of 32.
SIZES = [(650, 417), (333, 500), (400, 80), (61, 305), (30, 23), (640, 640)]
SMALL = dict(arch=None, depths=(1, 1, 1, 1), widths=(8, 16, 16, 16))
# Name → the config, and what makes it small.
KINDS = {
    'Mamba YOLO': ('mamba_yolo/mamba-yolo_t_8xb64-300e_coco.py', {
        'backbone': SMALL, 'neck': dict(in_channels=[16] * 3), 'bbox_head': dict(in_channels=[16] * 3)}),
    'YOLOv8': ('yolov8/yolov8_n_8xb64-300e_coco.py', {}),
    'RTMDet': ('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', {}),
    'YOLOX': ('yolox/yolox_s_8xb8-300e_coco.py', {}),
    'DINO': ('dino/dino-4scale_r50_8xb2-12e_coco.py', {
        'backbone': dict(depth=18), 'neck': dict(in_channels=[128, 256, 512]), 'num_queries': 60,
        'encoder': dict(num_layers=1), 'decoder': dict(num_layers=1)}),
    'RetinaNet': ('efficient_vmamba/retinanet_efficient-vmamba-t_fpn_amp-1x_coco.py', {}),
    'Mask R-CNN': ('efficient_vmamba/mask-rcnn_efficient-vmamba-t_fpn_1xb2_fruits-nuts.py', {
        'test_cfg': dict(rpn=dict(max_per_img=30), rcnn=dict(score_thr=0.0, max_per_img=20))}),
}
UNDER = {kind: 'bccd' for kind in ('RTMDet', 'YOLOX', 'DINO', 'RetinaNet')}  # as with `--data`
EXACT = {'Mamba YOLO', 'YOLOv8', 'RTMDet', 'YOLOX', 'DINO'}  # other heads of mmdet's round


@cache
def small_config(kind: str, data: str | None) -> Config:
    name, changes = KINDS[kind]
    config = Config.fromfile(CONFIGS / name)
    config.merge_from_dict({'model': changes})
    if data:
        config = under_recipe(config, data)
    drop_pretrained(config.model)
    if kind != 'Mask R-CNN':
        config.model.test_cfg.update(score_thr=0.0, nms_pre=100, max_per_img=100)
    return config


def wild_model(config: Config) -> nn.Module:
    """Random weights whose boxes end far outside the picture."""
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(config.model)).eval()  # DINO writes into its config
    model.init_weights()  # until then DINO's level embedding is whatever the memory held
    for name, parameter in model.named_parameters():
        if any(part in name for part in ('reg', 'bbox')) and parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel()**0.5)
    return model


def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in SIZES]


def check(found: InstanceData, shape: tuple[int, int], tolerance: float) -> None:
    height, width = shape
    assert len(found) > 0
    corners = found.bboxes.reshape(-1, 2, 2)
    assert (corners >= 0).all() and (corners <= tolerance + corners.new_tensor([width, height])).all()
    if 'masks' in found:
        assert found.masks.shape[-2:] == shape


@pytest.mark.parametrize('kind', KINDS)
@torch.no_grad()
def test_boxes_and_masks_of_test_pipelines(kind: str) -> None:
    config = small_config(kind, UNDER.get(kind))
    model = wild_model(config)
    steps = [step for step in config.test_dataloader.dataset.pipeline if step['type'] != 'LoadImageFromFile']
    steps[-1] = dict(type='PackDetInputs', meta_keys=('ori_shape', 'img_shape', 'scale_factor'))
    pipeline = Compose([dict(type='mmdet.LoadImageFromNDArray'), *steps])
    reached_edge = False
    for picture in pictures():
        sample, = model.test_step(pseudo_collate([pipeline({'img': picture})]))
        shape = picture.shape[:2]
        check(sample.pred_instances, shape, 0 if kind in EXACT else 1e-3)
        boxes = sample.pred_instances.bboxes
        reached_edge |= bool((boxes[:, 2:] > boxes.new_tensor([shape[1], shape[0]]) - 1).any())
    assert reached_edge  # else nothing was clipped


class Known(nn.Module):
    """A detector with a known answer: the bright rectangle of the picture, found in the tensor that it is given."""

    def test_step(self, data: dict) -> list[DetDataSample]:
        for image, sample in zip(data['inputs'], data['data_samples']):
            # Padding is 114, the picture black with a white rectangle.
            rows, columns = (image[0] > 200).any(1).nonzero(), (image[0] > 200).any(0).nonzero()
            box = torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]).float()
            box = HorizontalBoxes(box)
            box.clip_(sample.img_shape)
            box = box.tensor / torch.tensor(sample.scale_factor).repeat(2)
            sample.pred_instances = InstanceData(bboxes=box, scores=torch.ones(1), labels=torch.zeros(1).long())
        return data['data_samples']


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('base', ['coco_640', 'bccd_320'])
def test_tta_puts_views_back_where_they_were(size: tuple[int, int], base: str) -> None:
    width, height = size
    box = np.array([0.6 * width, 0.3 * height, width, 0.7 * height]).round()  # up to the right edge
    picture = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = box.astype(int)
    picture[top:bottom, left:right] = 255
    config = Config.fromfile(CONFIGS / '_base_' / 'datasets' / f'{base}.py')
    steps = [dict(type='mmdet.LoadImageFromNDArray'), *config.tta_pipeline[1:]]
    views = Compose(steps)({'img': picture, 'img_id': 0})
    # An IoU threshold of one keeps all views, so that none hides another.
    tta_cfg = ConfigDict(nms=dict(type='nms', iou_threshold=1.0), max_per_img=100)
    model = MODELS.build(dict(type='DetTTAModel', module=Known(), tta_cfg=tta_cfg))
    merged, = model.test_step(pseudo_collate([views]))
    boxes = merged.pred_instances.bboxes.numpy()
    assert len(boxes) >= 1
    pixel = max(1.0, max(size) / 256)  # of a view, in the picture
    assert np.abs(boxes - box).max() <= 1.5 * pixel, boxes
    assert (boxes >= 0).all() and (boxes[:, 2] <= width + 1e-3).all() and (boxes[:, 3] <= height + 1e-3).all()


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('pictures')
    for number, picture in enumerate(pictures()):
        cv2.imwrite(str(folder / f'{number}.png'), picture)
    return folder


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_runs_in_det_inferencer(kind: str, folder: Path, tmp_path: Path) -> None:
    """With paths, arrays, lists and folders, in batches of 1 to 3, from a config and with a checkpoint of ours."""
    config, checkpoint = tmp_path / 'config.py', tmp_path / 'weights.pth'
    cfg = small_config(kind, UNDER.get(kind))
    cfg.dump(config)
    classes = tuple(f'kind {number}' for number in range(80))
    meta = {'dataset_meta': {'classes': classes}}
    torch.save({'state_dict': wild_model(cfg).state_dict(), 'meta': meta}, checkpoint)
    DetInferencer(model=str(config), weights=None, device='cpu', show_progress=False)
    inferencer = DetInferencer(model=str(config), weights=str(checkpoint), device='cpu', show_progress=False)
    assert inferencer.model.dataset_meta['classes'] == classes

    everything, paths = str(folder), sorted(map(str, folder.iterdir()))
    for inputs, batch_size in ((paths[0], 1), (pictures()[0], 1), (paths[:4], 3), (pictures()[:3], 2),
                               (everything, 2)):
        found = inferencer(inputs, batch_size=batch_size, return_datasamples=True)['predictions']
        given = inputs if isinstance(inputs, list) else paths if inputs is everything else [inputs]
        assert len(found) == len(given)
        for sample, picture in zip(found, given):
            shape = (cv2.imread(sample.img_path) if sample.img_path else picture).shape[:2]
            check(sample.pred_instances, shape, 0 if kind in EXACT else 1e-3)

    out = tmp_path / 'out'
    inferencer(paths[:3], batch_size=2, out_dir=str(out), no_save_pred=False, pred_score_thr=0.0)
    for path in paths[:3]:
        drawn, original = cv2.imread(str(out / 'vis' / Path(path).name)), cv2.imread(path)
        assert drawn.shape == original.shape
        assert (out / 'preds' / f'{Path(path).stem}.json').is_file()


@pytest.mark.parametrize('kind', ['Mamba YOLO', 'Mask R-CNN'])
def test_drawn_pictures_have_the_pictures_size_and_no_band(kind: str, tmp_path: Path) -> None:
    cfg = small_config(kind, None)
    torch.save({'state_dict': wild_model(cfg).state_dict(), 'meta': {}}, tmp_path / 'weights.pth')
    detector = Detector(cfg, tmp_path / 'weights.pth', torch.device('cpu'))
    for width, height in SIZES:
        picture = np.full((height, width, 3), 60, np.uint8)
        sample, = detector.detect([detector.prepare(picture, tmp_path / 'a.png')])
        described = np.array(detector.describe(detector.choose(sample, 0.0))['bboxes'])
        assert (described >= 0).all() and (described[:, 2] <= width).all() and (described[:, 3] <= height).all()
        # Two boxes, so that most of the border stays visible; one of them is the whole picture.
        sample.pred_instances = sample.pred_instances[:2]
        sample.pred_instances.bboxes[0] = torch.tensor([0.0, 0.0, width, height])
        sample.pred_instances.pop('masks', None)
        drawn = detector.draw(picture, detector.choose(sample, 0.0))
        assert drawn.shape == picture.shape
        for line in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]):
            assert (line > 250).all(axis=1).mean() < 0.5  # no white band
