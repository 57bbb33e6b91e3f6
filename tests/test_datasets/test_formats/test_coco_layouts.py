from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from mmmamba.datasets.formats import Split, config_for_data, find_data
from mmmamba.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of two classes, without its images."""
    for name in ('train', 'val', 'annotations'):
        (tmp_path / name).mkdir()
    content = {
        'images': [{'id': 1, 'file_name': 'empty.png', 'height': 40, 'width': 60},
                   {'id': 2, 'file_name': 'a.png', 'height': 40, 'width': 60}],
        'annotations': [{'id': 1, 'image_id': 2, 'category_id': 7, 'bbox': [5, 6, 20, 15], 'area': 300, 'iscrowd': 0}],
        'categories': [{'id': 3, 'name': 'cat'}, {'id': 7, 'name': 'cup'}],
    }
    for name in ('train', 'instances_val'):
        (tmp_path / 'annotations' / f'{name}.json').write_text(json.dumps(content))
    return tmp_path


def test_finds_both_spellings_and_reads_the_classes_by_id(root: Path) -> None:
    folder = find_data(root)
    annotations = root / 'annotations'
    assert dict(folder.splits) == {'train': Split(annotations / 'train.json', root / 'train'),
                                   'val': Split(annotations / 'instances_val.json', root / 'val')}
    assert folder.classes == ('cat', 'cup')


@pytest.mark.parametrize('content, message', [
    ('{', 'not valid JSON'),
    ('[]', 'is not in COCO format'),
    ('{"images": [], "annotations": []}', 'no list of categories'),
    ('{"images": [{"id": 1, "file_name": "a", "width": 1, "height": 1}], "annotations": [], "categories": []}',
     'no categories'),
])
def test_malformed_annotations_get_one_line(root: Path, content: str, message: str) -> None:
    (root / 'annotations' / 'train.json').write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        find_data(root)
    assert 'train.json' in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('missing', ['train', 'val', 'annotations/train.json', 'annotations/instances_val.json'])
def test_a_missing_part_is_named_with_the_layout(root: Path, missing: str) -> None:
    (root / missing).rename(root / 'elsewhere')
    with pytest.raises(InputError, match='expected: train/ and val/ with images'):
        find_data(root)


def test_config_is_pointed_at_the_folder_through_wrappers(root: Path) -> None:
    leaf = {'type': 'CheckedCocoDataset', 'ann_file': 'x.json', 'data_root': 'y', 'metainfo': {'classes': ('z', )}}
    original = Config({
        'model': {'bbox_head': {'num_classes': 80}},
        'train_dataloader': {'dataset': {'type': 'SeededDataset', 'dataset': leaf}},
        'val_dataloader': {'dataset': leaf},
        'test_dataloader': {'dataset': {'type': 'ConcatDataset', 'datasets': [leaf, leaf]}},
        'val_evaluator': {'type': 'CocoMetric', 'ann_file': 'x.json'},
        'test_evaluator': {'type': 'CocoMetric', 'ann_file': 'x.json'},
    })
    config = config_for_data(original, find_data(root))

    val = str(root / 'annotations' / 'instances_val.json')
    train_leaf = config.train_dataloader.dataset.dataset
    assert train_leaf.ann_file == str(root / 'annotations' / 'train.json')
    assert train_leaf.data_prefix.img == f'{root / "train"}/'
    for found in (config.val_dataloader.dataset, *config.test_dataloader.dataset.datasets):
        assert (found.ann_file, found.data_prefix.img, found.data_root) == (val, f'{root / "val"}/', '')
        assert found.metainfo.classes == ('cat', 'cup')
    assert config.val_evaluator.ann_file == config.test_evaluator.ann_file == val
    assert config.model.bbox_head.num_classes == 2
    assert original.val_dataloader.dataset.ann_file == 'x.json'
