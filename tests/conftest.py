"""Fixtures that several folders of tests share."""
from __future__ import annotations

import json
import os
import runpy
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
import triton_interpreter

if 'PYTEST_XDIST_WORKER' in os.environ:  # one of several processes, which would wait for each other's threads
    torch.set_num_threads(1)
    os.environ.setdefault('OMP_NUM_THREADS', '1')  # of the processes that tests start

if not torch.cuda.is_available():
    # Before anything of the package is imported: Triton's kernels run in its interpreter, on tensors of the CPU.
    os.environ['TRITON_INTERPRET'] = '1'
    with suppress(ImportError):
        from triton.runtime import interpreter

        triton_interpreter.hasten(interpreter)

CLASSES = ('square', 'wide', 'tall')
_ASPECTS = ((1, 1), (2, 1), (1, 2))
_COLOURS = ((40, 40, 220), (40, 220, 40), (220, 40, 40))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line('markers', 'needs_torch(version, reason): skips the test on a PyTorch older than version')


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Obeys ``needs_torch``.

    2.11 means: works with 2.11 or 2.13 and fails with 2.4; no version between was tried. torch.export of 2.4 refuses
    the switch of autocast around a scan (``Node.meta _enter_autocast is missing val field``), and its torch.compile
    cannot trace a function that writes to ``out=`` while gradients are recorded, as the torch backend's does.
    """
    for mark in item.iter_markers('needs_torch'):
        version, reason = mark.args
        if torch.__version__ < version:  # compares as a version
            pytest.skip(f'needs PyTorch {version}: {reason}')


def compose_coco_folder(root: Path, images: int = 8, size: tuple[int, int] = (64, 48), split: str = 'train',
                        seed: int = 0) -> Path:
    """Writes ``root/SPLIT/*.jpg`` and ``root/annotations/SPLIT.json``: coloured rectangles of three classes on noise.

    Args:
        root: The folder.
        images: Number of images, of which every fourth has no object.
        size: Their width and height.
        split: Name of the image folder and of the annotation file.
        seed: What to draw.

    Returns:
        ``root``.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    (root / split).mkdir(parents=True)
    (root / 'annotations').mkdir(exist_ok=True)
    content = {'images': [], 'annotations': [],
               'categories': [{'id': i + 1, 'name': name} for i, name in enumerate(CLASSES)]}
    for image_id in range(1, images + 1):
        canvas = rng.integers(90, 140, (height, width, 3), dtype=np.uint8)
        for _ in range(0 if image_id % 4 == 0 else int(rng.integers(1, 4))):
            label = int(rng.integers(len(CLASSES)))
            unit = int(rng.integers(height // 6, height // 3))
            w, h = unit * _ASPECTS[label][0], unit * _ASPECTS[label][1]
            x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
            canvas[y:y + h, x:x + w] = _COLOURS[label]
            content['annotations'].append({'id': len(content['annotations']) + 1, 'image_id': image_id,
                                           'category_id': label + 1, 'bbox': [x, y, w, h], 'area': w * h,
                                           'iscrowd': 0})
        name = f'{image_id:06d}.jpg'
        cv2.imwrite(str(root / split / name), canvas)
        content['images'].append({'id': image_id, 'file_name': name, 'width': width, 'height': height})
    (root / 'annotations' / f'{split}.json').write_text(json.dumps(content))
    return root


@pytest.fixture
def poisoned_memory():
    """Fills what torch.empty returns with NaN, so that an element that a kernel forgot to write is seen.

    PyTorch does this if only deterministic algorithms are allowed, which is also what our kernels promise.
    """
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory and torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def coco_folder(tmp_path: Path) -> Callable[..., Path]:
    """A function that composes a data set under ``tmp_path``; takes the arguments of :func:`compose_coco_folder`."""
    def compose(**arguments) -> Path:
        return compose_coco_folder(tmp_path / 'data', **arguments)
    return compose


@pytest.fixture(scope='session')
def shared_coco_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data set for tests that only read it: ``train`` of 16 images and ``val`` of 4."""
    root = compose_coco_folder(tmp_path_factory.mktemp('coco') / 'data', images=16)
    return compose_coco_folder(root, images=4, split='val', seed=1)


@pytest.fixture(autouse=True, scope='session')
def unformatted_configs():
    """Leaves the text of a config as it is: mmengine breaks its lines with yapf, a second a checkpoint."""
    from mmengine.config import config
    from yapf.yapflib import yapf_api

    owner = config if hasattr(config, 'FormatCode') else yapf_api  # OneDL's mmengine imports it at every call
    with mock.patch.object(owner, 'FormatCode', lambda text, **_: (text, False)):
        yield


@pytest.fixture(autouse=True)
def separate_runs():
    """Leaves no default scope behind: a Runner sets one for the whole process."""
    from mmengine.registry import DefaultScope

    before = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """A function that runs a Python file as a program in this process, with arguments, and returns its exit status."""
    def run(path: Path, *arguments: object) -> int:
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
        try:
            runpy.run_path(str(path), run_name='__main__')
        except SystemExit as end:
            return end.code or 0
        return 0
    return run


@pytest.fixture
def mmdet_scope():
    """Resolves bare names in configs as ``default_scope='mmdet'`` does, for one test."""
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmdet'):
        yield
