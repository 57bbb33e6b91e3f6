from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmmamba.datasets.composed import CLASSES, PHOTOGRAPHS, Composition, compose, load_digits
from mmmamba.errors import InputError

SMALL = Composition(train_images=12, val_images=6)


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('demo') / 'data'
    compose(root, SMALL)
    return root


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob('*')) if path.is_file()}


def _content(root: Path, split: str) -> dict:
    return json.loads((root / 'annotations' / f'{split}.json').read_text())


def test_same_seed_same_bytes_other_seed_other_bytes(root: Path, tmp_path: Path) -> None:
    compose(tmp_path / 'same', SMALL)
    compose(tmp_path / 'other', Composition(seed=1, train_images=12, val_images=6))
    assert _files(tmp_path / 'same') == _files(root)
    other = _files(tmp_path / 'other')
    assert all(other[name] != content for name, content in _files(root).items())


@pytest.mark.parametrize('split, count', [('train', 12), ('val', 6)])
def test_pycocotools_loads_it_and_every_image_has_digits(root: Path, split: str, count: int) -> None:
    coco = COCO(str(root / 'annotations' / f'{split}.json'))
    assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert len(coco.imgs) == count == len(list((root / split).iterdir()))
    for image_id, image in coco.imgs.items():
        picture = cv2.imread(str(root / split / image['file_name']))
        assert picture.shape == (image['height'], image['width'], 3) == (256, 256, 3)
        assert 1 <= len(coco.getAnnIds(imgIds=image_id)) <= SMALL.digits[1]


@pytest.mark.parametrize('split', ['train', 'val'])
def test_boxes_areas_and_masks_agree_exactly_and_masks_are_disjoint(root: Path, split: str) -> None:
    coco = COCO(str(root / 'annotations' / f'{split}.json'))
    covered = {image_id: np.zeros((256, 256), bool) for image_id in coco.imgs}
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation).astype(bool)
        rows, columns = np.nonzero(mask)
        left, top, width, height = annotation['bbox']
        assert [columns.min(), rows.min()] == [left, top]
        assert [columns.max() + 1, rows.max() + 1] == [left + width, top + height]
        assert annotation['area'] == mask.sum() == coco_mask.area(coco.annToRLE(annotation))
        assert annotation['iscrowd'] == 0
        assert not (covered[annotation['image_id']] & mask).any()
        covered[annotation['image_id']] |= mask


def test_digits_carry_their_scans_label(root: Path) -> None:
    for split in ('train', 'val'):
        labels = {digit.number: digit.label for digit in load_digits(split)}
        for annotation in _content(root, split)['annotations']:
            assert annotation['category_id'] == labels[annotation['digit']] + 1


def test_digits_and_photographs_of_train_and_val_are_disjoint(root: Path) -> None:
    assert not {d.number for d in load_digits('train')} & {d.number for d in load_digits('val')}
    assert not set(PHOTOGRAPHS['train']) & set(PHOTOGRAPHS['val'])
    used = {split: _content(root, split) for split in ('train', 'val')}
    digits = [{a['digit'] for a in used[split]['annotations']} for split in ('train', 'val')]
    photographs = [{i['photograph'] for i in used[split]['images']} for split in ('train', 'val')]
    assert digits[0] and digits[1] and not digits[0] & digits[1]
    assert photographs[0] and photographs[1] and not photographs[0] & photographs[1]


def test_digits_stand_out_from_what_is_behind_them(root: Path) -> None:
    """The mean brightness inside a digit differs from that of the ring around it."""
    coco = COCO(str(root / 'annotations' / 'train.json'))
    inks = {image_id: np.zeros((256, 256), bool) for image_id in coco.imgs}
    for annotation in coco.anns.values():
        inks[annotation['image_id']] |= coco.annToMask(annotation).astype(bool)
    visible = 0
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        grey = cv2.imread(str(root / 'train' / coco.imgs[annotation['image_id']]['file_name']), cv2.IMREAD_GRAYSCALE)
        near = cv2.dilate(mask, np.ones((25, 25))).astype(bool)
        far = cv2.dilate(mask, np.ones((9, 9))).astype(bool)
        ring = near & ~far & ~inks[annotation['image_id']]
        visible += abs(float(grey[mask.astype(bool)].mean()) - float(grey[ring].mean())) > 30
    assert visible >= 0.9 * len(coco.anns)


def test_a_complete_data_set_is_kept_and_another_composition_replaces_it(root: Path, tmp_path: Path) -> None:
    target = tmp_path / 'data'
    compose(target, SMALL)
    before = (target / 'train').stat().st_mtime_ns
    compose(target, SMALL)
    assert (target / 'train').stat().st_mtime_ns == before
    compose(target, Composition(train_images=2, val_images=1))
    assert len(_content(target, 'train')['images']) == 2


def test_several_may_compose_the_same_at_once(root: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: compose(tmp_path / 'data', SMALL), range(2)))
    assert _files(tmp_path / 'data') == _files(root)
    assert os.listdir(tmp_path) == ['data']


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'mine.txt').write_text('keep')
    with pytest.raises(InputError, match="not the demo's data set"):
        compose(tmp_path / 'data', SMALL)
    assert (tmp_path / 'data' / 'mine.txt').read_text() == 'keep'


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bool:
        raise OSError('No space left on device')

    monkeypatch.setattr(cv2, 'imwrite', fail)
    with pytest.raises(OSError, match='No space left'):
        compose(tmp_path / 'data', SMALL)
    assert list(tmp_path.iterdir()) == []
