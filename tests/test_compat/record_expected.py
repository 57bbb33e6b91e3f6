"""Record what the compiled operators of full mmcv return, for ``test_recorded.py`` to compare with.

Run once, in an environment of its own with PyTorch 2.13.0 (CPU) and mmcv 2.1.0 built from its source distribution with
``MMCV_WITH_OPS=1 pip install --no-build-isolation mmcv==2.1.0`` (nine minutes; needs ``setuptools<81``)::

    python tests/test_compat/record_expected.py

It writes ``tests/data/compat_{nms,softnms,roi_align}.npz``: under ``<case>.<name>`` the inputs, arguments and results
of each case. mmcv has no CPU kernels of the sigmoid focal loss and of deformable attention; their tests compare with
formulas instead.
"""
from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import torch
from mmcv import _ext
from mmcv.ops import roi_align
from torch import Tensor

DATA = Path(__file__).parent.parent / 'data'


def crowd(n: int, seed: int, grid: float) -> tuple[Tensor, Tensor]:
    """Overlapping boxes, none of them empty; coordinates are rounded so that IoUs at the threshold occur.

    All scores differ: mmcv takes equal ones in the order of a sort that is not stable, which differs among processors.
    """
    rng = np.random.default_rng(seed)
    corner = (rng.uniform(0, 60, (n, 2)) / grid).round() * grid
    size = (rng.uniform(1, 40, (n, 2)) / grid).round().clip(1) * grid
    scores = rng.permutation(n) / n
    return torch.from_numpy(np.concatenate((corner, corner + size), 1)).float(), torch.from_numpy(scores).float()


def nms_cases() -> list[dict]:
    cases = []
    for seed, (threshold, offset, grid) in enumerate(product((0.0, 0.3, 0.5, 0.6, 0.7, 1.0), (0, 1), (1e-3, 4.0))):
        boxes, scores = crowd(150, seed, grid)
        keep = _ext.nms(boxes, scores, iou_threshold=threshold, offset=offset)
        cases.append(dict(boxes=boxes, scores=scores, iou_threshold=threshold, offset=offset, keep=keep))
    return cases


def softnms_cases() -> list[dict]:
    cases = []
    for seed, (method, offset, grid, min_score) in enumerate(product((0, 1, 2), (0, 1), (1e-3, 4.0), (1e-3, 0.2))):
        boxes, scores = crowd(60, 100 + seed, grid)
        scores = scores.mul(20).round().div(20)  # equal ones are taken in a defined order here
        arguments = dict(iou_threshold=0.3, sigma=0.5, min_score=min_score, method=method, offset=offset)
        dets = boxes.new_empty((len(boxes), 5))
        keep = _ext.softnms(boxes.clone(), scores.clone(), dets, **arguments)
        cases.append(dict(boxes=boxes, scores=scores, dets=dets[:len(keep)], keep=keep, **arguments))
    return cases


def roi_align_cases() -> list[dict]:
    rois = torch.tensor([[0, 1, 2, 30, 25], [1, -8, -3, 50, 60], [0, 5, 5, 5, 5], [1, 80, 80, 90, 90],
                         [1, 3.3, 7.1, 9.9, 41.7], [0, -90, -90, -70, -60], [0, 0, 0, 43, 35]], dtype=torch.float32)
    cases = []
    for seed, (mode, aligned, ratio) in enumerate(product(('max', 'avg'), (False, True), (0, 1, 3))):
        generator = torch.Generator().manual_seed(seed)
        maps = torch.randn(2, 3, 9, 11, generator=generator).requires_grad_()
        grad_output = torch.randn(len(rois), 3, 3, 2, generator=generator)
        output = roi_align(maps, rois, (3, 2), 0.25, ratio, mode, aligned)
        output.backward(grad_output)
        cases.append(dict(input=maps, rois=rois, spatial_scale=0.25, sampling_ratio=ratio, pool_mode=mode,
                          aligned=aligned, output=output, grad_output=grad_output, grad_input=maps.grad))
    return cases


def save(name: str, cases: list[dict]) -> None:
    arrays = {}
    for i, case in enumerate(cases):
        for key, value in case.items():
            arrays[f'{i}.{key}'] = value.detach().numpy() if isinstance(value, Tensor) else np.array(value)
    np.savez_compressed(DATA / f'compat_{name}.npz', **arrays)


if __name__ == '__main__':
    save('nms', nms_cases())
    save('softnms', softnms_cases())
    save('roi_align', roi_align_cases())
