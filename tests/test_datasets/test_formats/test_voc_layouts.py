"""Layouts and oddities of VOC's format: read right, or refused in one line."""
from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from three_formats import CLASSES, compose_pictures, write_voc

from mmmamba.datasets.formats import DataFolder, find_data
from mmmamba.errors import InputError

PICTURES = {'train': compose_pictures(5, 1), 'val': compose_pictures(3, 2, 'v')}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """VOC's own layout, with lists and a list of the classes."""
    return write_voc(tmp_path / 'set', PICTURES)


def boxes(data: DataFolder, split: str) -> list[tuple]:
    content = json.loads(data.splits[split].annotations.read_text())
    assert all((data.splits[split].images / image['file_name']).is_file() for image in content['images'])
    names = {image['id']: Path(image['file_name']).name for image in content['images']}
    return [(names[item['image_id']], item['category_id'], *item['bbox']) for item in content['annotations']]


def expected(split: str) -> list[tuple]:
    return [(picture.name, label + 1, *box) for picture in PICTURES[split] for label, *box in picture.objects]


def in_split_folders(root: Path, *names: str) -> None:
    """Moves images and XML files into ``train/`` and ``valid/``."""
    for split, pictures in PICTURES.items():
        folder = root / {'val': 'valid'}.get(split, split)
        for name in names:
            (folder / name).mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            xml = f'{Path(picture.name).stem}.xml'
            (root / 'JPEGImages' / picture.name).rename(folder / names[0] / picture.name)
            (root / 'Annotations' / xml).rename(folder / names[-1] / xml)
    for name in ('JPEGImages', 'Annotations', 'ImageSets'):
        shutil.rmtree(root / name)


def roboflow(root: Path) -> None:
    in_split_folders(root, '')


def split_folders(root: Path) -> None:
    in_split_folders(root, 'images', 'annotations')


def devkit(root: Path) -> None:
    (root / 'VOCdevkit' / 'VOC2012').mkdir(parents=True)
    for path in [path for path in root.iterdir() if path.name != 'VOCdevkit']:
        path.rename(root / 'VOCdevkit' / 'VOC2012' / path.name)


def without_classes(root: Path) -> None:
    (root / 'labels.txt').unlink()


def labelmap(root: Path) -> None:
    """CVAT's."""
    lines = ['# label:color_rgb:parts:actions', 'background:0,0,0::', *(f'{name}:1,2,3::' for name in CLASSES)]
    (root / 'labels.txt').unlink()
    (root / 'labelmap.txt').write_text('\n'.join(lines))


def capitals(root: Path) -> None:
    for path in [*(root / 'JPEGImages').iterdir(), *(root / 'Annotations').iterdir()]:
        path.rename(path.with_name(f'{path.stem}{path.suffix.upper()}'))
    (root / 'Annotations').rename(root / 'annotations')


def two_endings(root: Path) -> None:
    """filename tells which image is meant; the other is not annotated."""
    shutil.copy(root / 'JPEGImages' / '000.png', root / 'JPEGImages' / '000.jpg')


def renamed(root: Path) -> None:
    """filename has a path of Windows, and alone tells which image an XML file is of."""
    path = root / 'Annotations' / '001.xml'
    text = path.read_bytes().replace(b'001.png', b'C:\\set\\001.png')
    path.write_bytes(b'\xef\xbb\xbf' + text.replace(b'\n', b'\r\n'))
    path.rename(path.with_name('one.xml'))
    path = root / 'ImageSets' / 'Main' / 'train.txt'
    path.write_text(path.read_text().replace('001', 'one'))


def no_size(root: Path) -> None:
    for path in (root / 'Annotations').iterdir():
        path.write_text(re.sub(r'<size>.*</size>', '<size><width>0</width><height>0</height></size>',
                               path.read_text()))


@pytest.mark.parametrize('change', [roboflow, split_folders, devkit, without_classes, labelmap, capitals, two_endings,
                                    renamed, no_size], ids=lambda change: change.__name__)
def test_layouts_give_the_same_objects(root: Path, change: Callable[[Path], None]) -> None:
    change(root)
    data = find_data(root)
    assert data.format == 'VOC' and data.classes == CLASSES and set(data.splits) == {'train', 'val'}
    for split in PICTURES:
        assert sorted((name.replace('.PNG', '.png'), *rest) for name, *rest in boxes(data, split)) == sorted(
            expected(split))


def test_without_lists_val_is_drawn(root: Path) -> None:
    shutil.rmtree(root / 'ImageSets')
    for path in (root, root / 'Annotations'):
        data = find_data(path)
        assert 'VOC (Annotations/), 7 + 1 images' in data.remarks[0]
        assert 'val is drawn from train by seed 0' in data.remarks[0]


def test_a_list_of_both_is_train(root: Path) -> None:
    lists = root / 'ImageSets' / 'Main'
    (lists / 'trainval.txt').write_text('000 1\n001 -1\n002\n')
    (lists / 'train.txt').unlink()
    assert 'VOC (Annotations/), 2 + 1 images' in find_data(root).remarks[0]


def test_a_name_in_a_list_may_have_words_and_end_with_a_number(root: Path) -> None:
    for stem, name in (('000', 'train 1'), ('001', 'train 2'), ('002', 'the third one')):
        for file in [*root.glob(f'*/{stem}.*')]:
            file.rename(file.with_stem(name))
    lists = root / 'ImageSets' / 'Main'
    (lists / 'train.txt').write_text('train 1\ntrain 2  -1\nthe third one 0\n')
    assert {name for name, *_ in boxes(find_data(root), 'train')} == {
        'train 1.png', 'train 2.png', 'the third one.png'}


def test_what_was_left_out_is_said(root: Path) -> None:
    shutil.rmtree(root / 'ImageSets')
    (root / 'Annotations' / '000.xml').unlink()
    (root / 'JPEGImages' / '001.png').unlink()
    path = root / 'Annotations' / 'v000.xml'
    path.write_text(path.read_text().replace('<size><width>', '<size><width>1'))
    path = root / 'Annotations' / 'v001.xml'
    path.write_text(path.read_text().replace('<xmin>', '<xmin>-', 1))
    _, remark = find_data(root).remarks
    for part in (f'XML files without an image: 1 ({root}/Annotations/001.xml)',
                 f'images left out, which have no XML file: 1 ({root}/JPEGImages/000.png)',
                 f'images of another size than their labels say, which training leaves out: 1 ({root}/JPEGImages/v000',
                 'boxes clipped to their image: 1'):
        assert part in remark


XML = 'Annotations/000.xml'
BOX = '<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>{}</ymax></bndbox>'


@pytest.mark.parametrize('file, text, message', [
    (XML, '<annotation>\n<object></annotation>', r'000.xml, line 2: this is not valid XML: mismatched tag'),
    (XML, '', r'000.xml, line 1: this is not valid XML: no element found'),
    (XML, '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>\n<annotation>&b;</annotation>',
     r'000.xml, line 1: it declares a document type \(DOCTYPE\)'),
    (XML, '<annotation>\n<object><name> </name></object></annotation>', r'000.xml, line 2: object has no name'),
    (XML, '<annotation>\n<object><name>plum</name></object></annotation>',
     r"000.xml, line 2: the class 'plum' is not among those of the list of classes: apple, kiwi, pear"),
    (XML, '<annotation><object><name>kiwi</name></object></annotation>', r"line 1: the object 'kiwi' has no bndbox"),
    (XML, f'<annotation><object><name>kiwi</name>\n{BOX.format("x")}</object></annotation>',
     r"000.xml, line 2: ymax is 'x', not a number"),
    (XML, f'<annotation><object><name>kiwi</name>{BOX.format("inf")}</object></annotation>', "ymax is 'inf', not a"),
    (XML, b'<annotation><object><name>k\xfcwi</name></object></annotation>', 'not valid XML: not well-formed'),
    (XML, '<annotation>\n<size><width>1e300</width><height>9</height></size></annotation>',
     r'000.xml, line 2: the size 1e\+300 x 9 is not an image'),
    ('ImageSets/Main/val.txt', '', 'there is no image for val'),
    ('ImageSets/Main/val.txt', 'v000\n\nv009\n', r'val.txt, line 3: v009 has no XML file, or that has no image'),
    ('labels.txt', 'apple\napple', "the class 'apple' is listed twice"),
])
def test_mistakes_get_one_line(root: Path, file: str, text: str | bytes, message: str,
                                    mistake: Callable[..., str]) -> None:
    assert re.search(message, mistake(root, file, text))


def test_several_sets_or_images_of_a_name_are_refused(root: Path) -> None:
    shutil.copytree(root, root / 'VOC2007')
    shutil.copytree(root / 'VOC2007', root / 'VOC2012')
    for name in ('JPEGImages', 'Annotations', 'ImageSets', 'labels.txt'):
        path = root / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(InputError, match='holds several data sets: .*VOC2007, .*VOC2012; name one of them'):
        find_data(root)
    single = root / 'VOC2007'
    for ending in ('jpg', 'webp'):
        shutil.copy(single / 'JPEGImages' / '000.png', single / 'JPEGImages' / f'000.{ending}')
    (single / 'JPEGImages' / '000.png').unlink()
    with pytest.raises(InputError, match='000.xml may be of 000.jpg or 000.webp: write into its filename which'):
        find_data(single)
