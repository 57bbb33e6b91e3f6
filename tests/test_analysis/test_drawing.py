"""Pictures of a run: predictions beside the truth, and curves."""
from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from mmmamba.analysis.drawing import draw_curves, draw_predictions

CONTENT = {
    'images': [{'id': 1, 'file_name': 'empty.png', 'height': 40, 'width': 60},
               {'id': 2, 'file_name': 'a.png', 'height': 40, 'width': 60}],
    'annotations': [{'id': 1, 'image_id': 2, 'category_id': 7, 'bbox': [5, 6, 20, 15], 'area': 300, 'iscrowd': 0}],
    'categories': [{'id': 3, 'name': 'cat'}, {'id': 7, 'name': 'cup'}],
}


def test_predictions_are_drawn_beside_the_truth(tmp_path: Path) -> None:
    annotations, out = tmp_path / 'val.json', tmp_path / 'predictions.png'
    annotations.write_text(json.dumps(CONTENT))
    for image in CONTENT['images']:
        cv2.imwrite(str(tmp_path / image['file_name']), np.full((40, 60, 3), 128, np.uint8))
    results = tmp_path / 'results.bbox.json'

    def draw(score: float) -> np.ndarray:
        results.write_text(json.dumps([{'image_id': 2, 'category_id': 3, 'bbox': [30, 5, 20, 30], 'score': score}]))
        draw_predictions(annotations, tmp_path, results, out)
        return cv2.imread(str(out))

    nothing, something = draw(0.29), draw(0.31)
    half = nothing.shape[1] // 2
    assert nothing.shape[1] > nothing.shape[0]  # the image without objects is left out: one row of two
    assert np.array_equal(nothing[:, :half], something[:, :half])
    assert (nothing[:, half:] != something[:, half:]).any()


def test_curves_are_plotted_from_mmengines_scalars(tmp_path: Path) -> None:
    scalars, out = tmp_path / 'scalars.json', tmp_path / 'curves.png'
    records = [{'loss': 5.0 / step, 'epoch': (step + 1) // 2, 'iter': step, 'step': step} for step in range(1, 5)]
    records += [{'coco/bbox_mAP': 0.1 * epoch, 'coco/bbox_mAP_50': 0.2 * epoch, 'step': epoch} for epoch in (1, 2)]
    scalars.write_text('\n'.join(map(json.dumps, records)) + '\n')
    draw_curves(scalars, out)
    picture = cv2.imread(str(out))
    assert picture.shape == (400, 1000, 3)
    saturation = picture.max(axis=2).astype(int) - picture.min(axis=2)
    assert (saturation[:, :500] > 50).any() and (saturation[:, 500:] > 50).any()  # a coloured line in both plots
