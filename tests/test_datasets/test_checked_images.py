"""Images that cannot be used: left out in training with a line, named in testing, for every data set of ours."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmcv.transforms import Compose
from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset, pseudo_collate
from torch.utils.data import DataLoader

from mmmamba.datasets import CheckedVOCDataset, LoadCheckedImage, SampleIndex
from mmmamba.datasets.transforms.load_checked_image import UnreadableImageError
from mmmamba.engine import UnreadableImagesHook

pytestmark = pytest.mark.usefixtures('mmdet_scope')
GOOD, BAD = 6, 2
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
RESIZE = dict(type='Resize', scale=(64, 64), keep_ratio=True)
SPOIL: dict[str, Callable[[Path], None]] = {
    'flat': lambda path: picture(path, 1600, 2),
    'thin': lambda path: picture(path, 2, 1600),
    'truncated': lambda path: path.write_bytes(path.read_bytes()[:60]),
    'no image': lambda path: path.write_text('version https://git-lfs.github.com/spec/v1'),
    'empty': lambda path: path.write_bytes(b''),
    'a folder': lambda path: (path.unlink(), path.mkdir()),
}


def picture(path: Path, width: int, height: int) -> None:
    generator = np.random.default_rng(0)
    cv2.imwrite(str(path), generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def write_coco(root: Path, spoil: str) -> dict:
    """The config of a data set of which two images are spoilt: numbers 2 and 5."""
    images, annotations = [], []
    for number in range(GOOD + BAD):
        path, (width, height) = root / f'{number}.png', (40, 30)
        picture(path, width, height)
        if number in (2, 5):
            SPOIL[spoil](path)
            width, height = {'flat': (1600, 2), 'thin': (2, 1600)}.get(spoil, (width, height))
        images.append(dict(id=number + 1, file_name=path.name, width=width, height=height))
        annotations.append(dict(id=number + 1, image_id=number + 1, category_id=1, bbox=[0, 0, 2, 2], area=4,
                                iscrowd=0))
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name='thing')])
    (root / 'a.json').write_text(json.dumps(content))
    return dict(type='CheckedCocoDataset', ann_file=str(root / 'a.json'), data_prefix=dict(img=f'{root}/'),
                metainfo=dict(classes=('thing', )))


def write_voc(root: Path, spoil: str) -> dict:
    for name in ('JPEGImages', 'Annotations'):
        (root / 'VOC2007' / name).mkdir(parents=True)
    for number in range(GOOD + BAD):
        path, (width, height) = root / 'VOC2007' / 'JPEGImages' / f'{number}.jpg', (40, 30)
        picture(path, width, height)
        if number in (2, 5):
            SPOIL[spoil](path)
        (root / 'VOC2007' / 'Annotations' / f'{number}.xml').write_text(
            f'<annotation><size><width>{width}</width><height>{height}</height></size><object><name>cat</name>'
            '<difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>'
            '</object></annotation>')
    (root / 'all.txt').write_text('\n'.join(map(str, range(GOOD + BAD))))
    return dict(type='CheckedVOCDataset', data_root=str(root), ann_file='all.txt',
                data_prefix=dict(sub_data_root='VOC2007/'))


def numbers(dataset: BaseDataset) -> list[int]:
    """The images that two epochs of two data workers give."""
    np.random.seed(0)
    loader = DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=pseudo_collate)
    return [int(Path(sample.img_path).stem) for _ in range(2) for batch in loader for sample in batch['data_samples']]


WRAPPERS: dict[str, Callable[[dict], dict]] = {
    'none': lambda inner: {**inner, 'pipeline': [*LOAD, RESIZE, dict(type='PackDetInputs')]},
    'SeededDataset': lambda inner: dict(
        type='SeededDataset', dataset={**inner, 'pipeline': LOAD}, pipeline=[RESIZE, dict(type='PackDetInputs')]),
    'ConcatDataset': lambda inner: dict(
        type='SeededDataset', pipeline=[RESIZE, dict(type='PackDetInputs')],
        dataset=dict(type='ConcatDataset', datasets=[{**inner, 'pipeline': LOAD}])),
    'MultiImageMixDataset': lambda inner: dict(
        type='MultiImageMixDataset', dataset={**inner, 'pipeline': [*LOAD, RESIZE]},
        pipeline=[dict(type='Mosaic', img_scale=(64, 64)), dict(type='PackDetInputs')]),
    'mosaic': lambda inner: dict(
        type='SeededDataset', dataset={**inner, 'pipeline': [*LOAD, RESIZE]},
        pipeline=[dict(type='Mosaic', img_scale=(64, 64)), dict(type='PackDetInputs')]),
}


@pytest.mark.parametrize('spoil', SPOIL)
@pytest.mark.parametrize('wrapper, write', [
    *((name, write_coco) for name in WRAPPERS), ('none', write_voc), ('SeededDataset', write_voc)])
def test_training_goes_on_and_says_what_it_leaves_out(tmp_path: Path, spoil: str, wrapper: str,
                                                      write: Callable[[Path, str], dict]) -> None:
    dataset = DATASETS.build(WRAPPERS[wrapper](write(tmp_path, spoil)))
    found = numbers(dataset)
    assert len(found) == 2 * (GOOD + BAD) and not {2, 5} & set(found)
    lines: list[str] = []
    UnreadableImagesHook().after_train_epoch(SimpleNamespace(
        train_dataloader=SimpleNamespace(dataset=dataset), epoch=0, logger=SimpleNamespace(warning=lines.append)))
    ending = 'png' if write is write_coco else 'jpg'
    assert lines == [f'Epoch 1: 2 unreadable image(s) replaced by others so far: 2.{ending}, 5.{ending}']


def test_each_is_logged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr('mmmamba.datasets.checked_images.print_log', lambda line, **_: lines.append(line))
    dataset = DATASETS.build(WRAPPERS['none'](write_coco(tmp_path, 'flat')))
    for _ in range(3):
        for index in range(len(dataset)):
            dataset[index]
    assert len(lines) == 2 and '(2 of 8 so far)' in lines[1]
    assert '2.png (1600x2) cannot be used: scaled, one of its sides has 0 pixels' in lines[0]


@pytest.mark.parametrize('spoil', SPOIL)
@pytest.mark.parametrize('write', [write_coco, write_voc])
def test_testing_names_it(tmp_path: Path, spoil: str, write: Callable[[Path, str], dict]) -> None:
    dataset = DATASETS.build({**write(tmp_path, spoil), 'test_mode': True,
                              'pipeline': [*LOAD, RESIZE, dict(type='PackDetInputs')]})
    assert dataset[1]['inputs'].shape == (3, 48, 64)
    with pytest.raises(UnreadableImageError, match=r'/2\.(png|jpg)'):
        dataset[2]


def test_the_place_of_an_image_is_taken_reproducibly(tmp_path: Path) -> None:
    config = WRAPPERS['SeededDataset'](write_coco(tmp_path, 'flat'))
    first, second = DATASETS.build(config), DATASETS.build(config)
    second[SampleIndex(2, 9, 9)]
    paths = [dataset[SampleIndex(2, 1, 1)]['data_samples'].img_path for dataset in (first, second)]
    assert paths[0] == paths[1]


def test_a_mistake_in_a_transform_is_not_put_down_to_the_image(tmp_path: Path) -> None:
    dataset = DATASETS.build({**write_coco(tmp_path, 'flat'), 'pipeline': LOAD})
    dataset.pipeline.transforms.append(lambda results: results['no such key'])
    with pytest.raises(KeyError, match='no such key'):
        dataset[0]


def test_loading_is_checked_whichever_way_the_pipeline_is_set(tmp_path: Path) -> None:
    steps = [dict(type='LoadImageFromFile', to_float32=True, color_type='grayscale'), *LOAD[1:]]
    dataset = DATASETS.build({**write_coco(tmp_path, 'truncated'), 'pipeline': steps})
    set_later = DATASETS.build({**write_coco(tmp_path, 'truncated'), 'pipeline': []})
    set_later.pipeline = Compose(steps)  # as PipelineSwitchHook does
    for one in (dataset, set_later):
        step = one.pipeline.transforms[0]
        assert type(step) is LoadCheckedImage and (step.to_float32, step.color_type) == (True, 'grayscale')
        assert one[0]['img'].dtype == np.float32


def test_voc_keeps_what_its_metric_asks_for(tmp_path: Path) -> None:
    dataset = DATASETS.build({**write_voc(tmp_path, 'flat'), 'pipeline': LOAD})
    assert isinstance(dataset, CheckedVOCDataset) and dataset.metainfo['dataset_type'] == 'VOC2007'
