"""The same set in the three formats is the same COCO file, byte for byte, with the same val where one is drawn."""
from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS
from PIL import Image
from three_formats import CLASSES, Picture, compose_pictures, voc_text, write_coco, write_voc, write_yolo, yolo_text

from mmmamba.datasets import LoadCheckedImage
from mmmamba.datasets.formats import DataFolder, find_data
from mmmamba.datasets.formats.conversion import Remarks
from mmmamba.datasets.formats.image_sizes import read_sizes
from mmmamba.datasets.formats.listing import Listing
from mmmamba.datasets.formats.yolo_labels import YoloLabels

WRITERS = {'COCO': write_coco, 'YOLO': write_yolo, 'VOC': write_voc}


def texts(data: DataFolder) -> dict[str, str]:
    return {split: found.annotations.read_text() for split, found in data.splits.items()}


@pytest.mark.parametrize('splits', [('train', 'val', 'test'), ('train', )])
def test_three_formats_agree_to_the_byte(tmp_path: Path, splits: tuple[str, ...]) -> None:
    pictures = {split: compose_pictures(10, seed, f'{split} ') for seed, split in enumerate(splits)}
    found = {name: find_data(write(tmp_path / name, pictures)) for name, write in WRITERS.items()}
    for name, data in found.items():
        assert data.format == name and data.classes == CLASSES and set(data.splits) == {'val', *splits}
        assert texts(data) == texts(found['COCO'])
        assert ('val is drawn from train by seed 0' in data.remarks[0]) == (splits == ('train', ))
        assert len(data.remarks) == 1
        for split in data.splits.values():
            images = json.loads(split.annotations.read_text())['images']
            assert images and all((split.images / image['file_name']).is_file() for image in images)
    if splits == ('train', ):
        other = find_data(tmp_path / 'VOC', seed=2)
        assert texts(other) == texts(find_data(tmp_path / 'YOLO', seed=2)) != texts(found['VOC'])


def test_boxes_are_those_that_mmdet_reads_from_xml(tmp_path: Path) -> None:
    pictures = compose_pictures(3)
    root = write_voc(tmp_path / 'voc', {'train': pictures, 'val': pictures})
    for picture in pictures:
        cv2.imwrite(str(root / 'JPEGImages' / f'{Path(picture.name).stem}.jpg'), picture.pixels)
        (root / 'JPEGImages' / picture.name).unlink()
        (root / 'Annotations' / f'{Path(picture.name).stem}.xml').write_text(
            voc_text(picture, difficult=1).replace('</xmin>', '.7</xmin>'))
    data = find_data(root)
    settings = {'metainfo': {'classes': CLASSES}, 'pipeline': [], 'test_mode': True}
    theirs = DATASETS.build({'type': 'XMLDataset', 'ann_file': 'ImageSets/Main/val.txt', 'data_root': str(root),
                             'data_prefix': {'sub_data_root': ''}, **settings})
    ours = DATASETS.build({'type': 'mmdet.CocoDataset', 'ann_file': str(data.splits['val'].annotations),
                           'data_prefix': {'img': str(data.splits['val'].images)}, **settings})
    assert len(ours) == len(theirs) == 3
    for index in range(3):
        mine, other = (dataset.get_data_info(index) for dataset in (ours, theirs))
        assert [item['bbox'] for item in mine['instances']] == [item['bbox'] for item in other['instances']]
        assert all(item['ignore_flag'] == 1 for item in (*mine['instances'], *other['instances']))
        assert (mine['width'], mine['height']) == (other['width'], other['height'])


def test_sizes_are_those_that_the_loader_sees(tmp_path: Path) -> None:
    """Turned by EXIF data or not, in every format; and none of what is no image."""
    pixels = Image.fromarray(np.zeros((40, 60, 3), np.uint8))
    for ending in ('jpg', 'png', 'webp', 'tif', 'bmp'):
        for orientation in (1, 3, 6):
            exif = Image.Exif()
            exif[0x0112] = orientation
            pixels.save(tmp_path / f'{orientation}.{ending}', exif=exif)
    paths = sorted(tmp_path.iterdir())
    expected = [LoadCheckedImage()({'img_path': str(path)})['img'].shape[1::-1] for path in paths]
    assert read_sizes(paths) == expected and (40, 60) in expected
    (tmp_path / 'a.jpg').write_bytes(b'no image')
    assert read_sizes([tmp_path / 'a.jpg', tmp_path / 'missing.png']) == [None, None]


@pytest.mark.parametrize('width', [256, 640, 1333, 4001])
def test_whole_pixels_survive_six_digits(tmp_path: Path, width: int) -> None:
    """Of YOLO's usual text; and coordinates with decimals stay within what the text says."""
    rng = np.random.default_rng(0)
    left = rng.integers(0, width - 1, 300)
    boxes = [(0, int(x), 3, int(rng.integers(1, width - x + 1)), 7) for x in left]
    picture = Picture('a.png', np.zeros((10, width, 3), np.uint8), boxes)
    path = tmp_path / 'a.txt'
    path.write_text(yolo_text(picture) + '1 0.5123456789 0.5 0.25 0.5\n')
    read = YoloLabels(Listing(), None, 0)(path, (width, 10), Remarks()).objects
    unique = list(dict.fromkeys(boxes))
    assert [item.box for item in read[:-1]] == [(x, y, x + w, y + h) for _, x, y, w, h in unique]
    assert read[-1].box[0] == pytest.approx((0.5123456789 - 0.125) * width, abs=5e-5)
