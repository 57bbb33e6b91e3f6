"""Truths and detections by hand: two classes, two images."""
from __future__ import annotations

from pycocotools.cocoeval import COCOeval

from mmmamba.analysis.compare.evaluation import evaluate_boxes


def thing(category: int, bbox: tuple[float, ...], image: int = 1, crowd: bool = False) -> dict:
    """An annotation."""
    return {'image_id': image, 'category_id': category, 'bbox': list(bbox), 'area': bbox[2] * bbox[3],
            'iscrowd': int(crowd)}


def box(category: int, bbox: tuple[float, ...], score: float, image: int = 1) -> dict:
    """A detection."""
    return {'image_id': image, 'category_id': category, 'bbox': list(bbox), 'score': score}


def truth_of(things: list[dict]) -> dict:
    """A COCO file of them."""
    return {'images': [{'id': i, 'file_name': f'{i}.png', 'width': 640, 'height': 480} for i in (1, 2)],
            'categories': [{'id': i, 'name': f'class {i}'} for i in (1, 2)],
            'annotations': [{'id': number, **item} for number, item in enumerate(things, start=1)]}


def evaluate(things: list[dict], boxes: list[dict]) -> COCOeval:
    """Evaluates the detections."""
    return evaluate_boxes(truth_of(things), boxes)
