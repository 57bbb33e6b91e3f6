"""What one core does of a training on COCO: images per second that are loaded, loaded for validation, and scored."""
from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from mmmamba.analysis.measure import Row

from mmdet.registry import DATASETS, METRICS  # isort: skip  (after mmmamba, which supplies mmcv's operators)

CONFIG = Path(__file__).parents[1] / 'configs/mamba_yolo/mamba-yolo_t_8xb64-300e_coco.py'
COCO_BYTES = 163_000  # of an image: train2017.zip has 19.3 GB in 118,287
BOXES, DETECTIONS, CLASSES = 7, 300, 80  # of an image; the last but one is what the recipe keeps
SIZE = (640, 480)
_PICTURES = 32  # different ones


def compose(folder: Path, images: int) -> None:
    """Writes a data set with COCO's classes, of pictures that are as large as COCO's, in pixels and in bytes."""
    rng = np.random.default_rng(0)
    (folder / 'train2017').mkdir(parents=True)
    (folder / 'annotations').mkdir()
    for first in range(_PICTURES):
        smooth = cv2.resize(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8), SIZE, interpolation=cv2.INTER_CUBIC)
        picture = np.clip(smooth + rng.normal(0, 14, smooth.shape), 0, 255).astype(np.uint8)
        qualities = [cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
                     for quality in (85, 90, 95)]
        nearest = min(qualities, key=lambda data: abs(len(data) - COCO_BYTES))
        for number in range(first, images, _PICTURES):
            (folder / f'train2017/{number:012d}.jpg').write_bytes(nearest.tobytes())
    records = [dict(id=number + 1, file_name=f'{number:012d}.jpg', width=SIZE[0], height=SIZE[1])
               for number in range(images)]
    corners = rng.uniform(0, 0.6, (images * BOXES, 2)) * SIZE
    sides = rng.uniform(0.03, 0.4, (images * BOXES, 2)) * SIZE
    boxes = [dict(id=number + 1, image_id=number // BOXES + 1, category_id=int(rng.integers(CLASSES)) + 1, iscrowd=0,
                  bbox=[*corner, *side], area=float(side.prod()))
             for number, (corner, side) in enumerate(zip(corners.tolist(), sides))]
    content = dict(images=records, annotations=boxes, categories=[
        dict(id=number + 1, name=name) for number, name in enumerate(_classes())])
    for split in ('train', 'val'):
        (folder / f'annotations/instances_{split}2017.json').write_text(json.dumps(content, default=list))


def measure(folder: Path, images: int) -> list[Row]:
    """Measures the rates on a composed data set, which is written first."""
    compose(folder, images)
    MMLogger.get_current_instance().setLevel('WARNING')
    cfg = Config.fromfile(CONFIG)
    init_default_scope('mmdet')
    cv2.setNumThreads(0)  # as the data workers do

    train = cfg.train_dataloader.dataset
    train.dataset.data_root = f'{folder}/'
    val = cfg.val_dataloader.dataset
    val.update(data_root=f'{folder}/', data_prefix=dict(img='train2017/'))
    loading = {'training': DATASETS.build(train), 'validation': DATASETS.build(val)}
    rows = [_row(what, images, lambda dataset=dataset: [dataset[number] for number in range(images)])
            for what, dataset in loading.items()]

    metric = METRICS.build({**cfg.val_evaluator, 'ann_file': f'{folder}/annotations/instances_val2017.json'})
    metric.dataset_meta = loading['validation'].metainfo
    results = _detections(images)
    return [*rows, _row('scoring', images, lambda: metric.compute_metrics(results))]


def _row(what: str, images: int, work: Callable[[], object]) -> Row:
    start = time.process_time()
    with redirect_stdout(StringIO()):  # pycocotools prints
        work()
    seconds = time.process_time() - start
    return {'what': what, 'images': images, 'seconds': round(seconds, 2), 'images_per_s': round(images / seconds, 1)}


def _detections(images: int) -> list[tuple[dict, dict]]:
    """As many random boxes of every image as the recipe keeps, as ``CocoMetric`` collects them."""
    rng = np.random.default_rng(1)
    results = []
    for number in range(images):
        corners = rng.uniform(0, 0.6, (DETECTIONS, 2)) * SIZE
        boxes = np.concatenate([corners, corners + rng.uniform(0.03, 0.4, (DETECTIONS, 2)) * SIZE], axis=1)
        results.append((dict(width=SIZE[0], height=SIZE[1], img_id=number + 1), dict(
            img_id=number + 1, bboxes=boxes.astype(np.float32), scores=rng.random(DETECTIONS, dtype=np.float32),
            labels=rng.integers(CLASSES, size=DETECTIONS))))
    return results


def _classes() -> tuple[str, ...]:
    return DATASETS.get('CocoDataset').METAINFO['classes']
