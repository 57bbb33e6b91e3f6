"""Detectors that do not exist: the truth with errors put in, of a known data set."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmmamba.analysis.compare.results import Comparison, RunResult, Validation

METRICS = ('coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_75', 'coco/bbox_mAP_s', 'coco/bbox_mAP_m',
           'coco/bbox_mAP_l')


def make_detections(truth: dict, skill: float, seed: int) -> list[dict]:
    """Moves boxes, drops some, renames some, repeats some and adds some, the less of each the greater the skill."""
    rng = np.random.default_rng(seed)
    categories = [item['id'] for item in truth['categories']]
    clumsy = 1 - skill
    found = []
    for item in truth['annotations']:
        for copy in range(2 if rng.random() < clumsy else 1):
            if rng.random() < clumsy / 2:
                continue
            x, y, w, h = item['bbox']
            dx, dy = rng.normal(0, 0.3 * clumsy, 2) * (w, h)
            category = int(rng.choice(categories)) if rng.random() < clumsy / 2 else item['category_id']
            found.append({'image_id': item['image_id'], 'category_id': category,
                          'bbox': [x + dx, y + dy, w, h], 'score': float(rng.uniform(0.2, 1) / (1 + copy))})
    for image in truth['images']:
        found.append({'image_id': image['id'], 'category_id': int(rng.choice(categories)),
                      'bbox': [*rng.uniform(0, 20, 2).tolist(), 9.0, 7.0], 'score': float(rng.uniform(0, 0.5))})
    return found


def coco_metrics(annotations: Path, detections: list[dict]) -> dict[str, float]:
    """CocoMetric's numbers, by pycocotools as it is meant to be called."""
    coco = COCO(str(annotations))
    evaluation = COCOeval(coco, coco.loadRes([dict(item) for item in detections]), 'bbox')
    evaluation.params.maxDets = [1, 10, 100]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return {name: round(float(value), 3) for name, value in zip(METRICS, evaluation.stats)}


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunResult]:
    """A function that makes a finished run on a file of annotations."""
    def make(annotations: Path, name: str, seed: int, skill: float, epochs: int = 10) -> RunResult:
        detections = make_detections(json.loads(annotations.read_text()), skill, seed)
        metrics = coco_metrics(annotations, detections)
        file = tmp_path / f'{len(list(tmp_path.iterdir()))}.bbox.json'
        file.write_text(json.dumps(detections))
        history = tuple(Validation(epoch, 1.5 * epoch + seed / 4, 3.0 * epoch, metrics[METRICS[0]] * epoch / epochs)
                        for epoch in range(1, epochs + 1))
        return RunResult(name, seed, None, 5_000_000 + len(name), metrics, history, file)
    return make


@pytest.fixture
def comparison_of(shared_coco_folder: Path) -> Callable[..., Comparison]:
    """A function that makes a comparison of runs on the shared data set's ``train``."""
    def make(*runs: RunResult, **changes: object) -> Comparison:
        return Comparison(**{
            'title': 'Two detectors', 'command': 'python tools/compare.py a.py b.py', 'conditions': {'epochs': '10'},
            'annotations': shared_coco_folder / 'annotations' / 'train.json', 'images': shared_coco_folder / 'train',
            'runs': runs, **changes,
        })
    return make
