"""Layouts and oddities of COCO's format: used in place, corrected in a copy, or refused in one line."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from three_formats import CLASSES, coco_content, compose_pictures, write_coco, write_voc, write_yolo

from mmmamba.datasets.coco_checks import check_images_exist, read_annotations
from mmmamba.datasets.formats import find_data
from mmmamba.errors import InputError

PICTURES = {'train': compose_pictures(5, 1), 'val': compose_pictures(3, 2, 'v')}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco(tmp_path / 'set', PICTURES)


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def annotations(root: Path) -> list[Path]:
    return list((root / 'annotations').iterdir())


def years(root: Path) -> None:
    for split in PICTURES:
        (root / split).rename(root / f'{split}2017')
        (root / 'annotations' / f'{split}.json').rename(root / 'annotations' / f'instances_{split}2017.json')


def inside_images(root: Path) -> None:
    (root / 'images').mkdir()
    for split in PICTURES:
        (root / split).rename(root / 'images' / split)


def one_image_folder(root: Path) -> None:
    (root / 'images').mkdir()
    for split in PICTURES:
        for path in (root / split).iterdir():
            path.rename(root / 'images' / path.name)
        (root / split).rmdir()


def names_with_folders(root: Path) -> None:
    """The file names begin with the split's folder."""
    for split in PICTURES:
        edit(root / 'annotations' / f'{split}.json', lambda content, split=split: [
            image.update(file_name=f'{split}/{image["file_name"]}') for image in content['images']])


def without_annotations_folder(root: Path) -> None:
    for split in PICTURES:
        (root / 'annotations' / f'{split}.json').rename(root / f'{split}.json')
    (root / 'annotations').rmdir()
    (root / 'package.json').write_text('{"images": 3}')


def valid(root: Path) -> None:
    (root / 'val').rename(root / 'valid')
    (root / 'annotations' / 'val.json').rename(root / 'annotations' / 'instances_valid.json')


def roboflow_in_place(root: Path) -> None:
    for split in PICTURES:
        (root / 'annotations' / f'{split}.json').rename(root / split / '_annotations.coco.json')
    (root / 'annotations').rmdir()


IN_PLACE = [years, inside_images, one_image_folder, names_with_folders, without_annotations_folder, valid,
            roboflow_in_place]


def roboflow(root: Path) -> None:
    """With ids from 0 and a class of all classes."""
    roboflow_in_place(root)

    def number_from_zero(content: dict) -> None:
        for item in content['annotations']:
            item['id'] -= 1
        for item in content['categories']:
            item['supercategory'] = 'fruits'
        content['categories'].insert(0, {'id': 0, 'name': 'fruits', 'supercategory': 'none'})

    for split in PICTURES:
        edit(root / split / '_annotations.coco.json', number_from_zero)
    (root / 'val').rename(root / 'valid')


def windows(root: Path) -> None:
    for path in annotations(root):
        edit(path, lambda content: [image.update(file_name=f'.\\{image["file_name"]}' if image['id'] % 2
                                                 else f'C:\\sets\\images\\{image["file_name"]}')
                                    for image in content['images']])


def other_machine(root: Path) -> None:
    for path in annotations(root):
        edit(path, lambda content: [image.update(file_name=f'/data/set/images/{image["file_name"]}')
                                    for image in content['images']])


def marked(root: Path) -> None:
    for path in annotations(root):
        path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes())


def unsorted(root: Path) -> None:
    for path in annotations(root):
        edit(path, lambda content: content['categories'].reverse())


def terse(root: Path) -> None:
    for path in annotations(root):
        edit(path, lambda content: [item.pop(key) for key in ('iscrowd', 'area') for item in content['annotations']])
        edit(path, lambda content: [item.pop(key) for key in ('width', 'height') for item in content['images']])


CORRECTED = [roboflow, windows, other_machine, marked, unsorted, terse]


@pytest.mark.parametrize('change', [*IN_PLACE, *CORRECTED], ids=lambda change: change.__name__)
def test_layouts_give_the_same_objects(root: Path, change: Callable[[Path], None], own_cache: Path) -> None:
    change(root)
    data = find_data(root)
    assert data.format == 'COCO' and data.classes == CLASSES
    for split, pictures in PICTURES.items():
        found = data.splits[split]
        assert (root in found.annotations.parents) == (change in IN_PLACE)
        content = read_annotations(str(found.annotations), for_evaluation=True)
        check_images_exist(content['images'], str(found.images), '')
        expected = coco_content(pictures)
        assert [item['bbox'] for item in content['annotations']] == [item['bbox'] for item in expected['annotations']]
        assert [item['area'] for item in content['annotations']] == [item['area'] for item in expected['annotations']]
        assert [Path(image['file_name']).name for image in content['images']] == [picture.name for picture in pictures]
    assert own_cache.exists() == (change in CORRECTED) == ('corrected in a copy: ' in data.remarks[0])


def test_a_single_file_is_split(root: Path) -> None:
    (root / 'annotations' / 'val.json').unlink()
    (root / 'val').rename(root / 'other')
    (root / 'annotations' / 'train.json').rename(root / 'annotations' / 'instances_default.json')
    (root / 'train').rename(root / 'images')
    found = find_data(root)
    named = find_data(root / 'annotations' / 'instances_default.json')
    assert named.remarks == found.remarks
    assert named.remarks[0] == ('COCO (annotations/instances_default.json), 4 + 1 images, 3 classes (apple, kiwi, '
                                'pear); val is drawn from train by seed 0')
    names = [{image['file_name'] for image in json.loads(split.annotations.read_text())['images']}
             for split in named.splits.values()]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 5


def test_polygons_with_holes_stay(root: Path) -> None:
    """As run lengths, which alone can say them."""
    holes = {'size': [0, 0], 'counts': [0]}
    edit(root / 'annotations' / 'train.json', lambda content: content['annotations'][0].update(segmentation=holes))
    for change in (lambda root: None, marked):
        change(root)
        content = json.loads(find_data(root).splits['train'].annotations.read_text())
        assert content['annotations'][0]['segmentation'] == holes


def test_a_test_split_may_be_broken(root: Path) -> None:
    write = root / 'annotations' / 'test.json'
    write.write_text('{')
    data = find_data(root)
    assert set(data.splits) == {'train', 'val'} and 'test is left out: ' in data.remarks[1]
    write.write_text((root / 'annotations' / 'val.json').read_text())
    (root / 'test').symlink_to(root / 'val', target_is_directory=True)
    data = find_data(root)
    assert data.splits['test'].annotations == write and '5 + 3 + 3 (test) images' in data.remarks[0]


@pytest.mark.parametrize('name', ['../train/000.png', '..\\train\\000.png', 'x/../../000.png'])
def test_names_do_not_lead_out(root: Path, name: str) -> None:
    edit(root / 'annotations' / 'train.json', lambda content: content['images'][0].update(file_name=name))
    with pytest.raises(InputError, match='leads out of the image folder'):
        find_data(root)


@pytest.mark.parametrize('name', ['a\0b.png', '\ud800.png', f'{"x" * 5000}.png', f'a/{"9" * 5000}.png'])
@pytest.mark.parametrize('splits', [['train', 'val'], ['train']])
def test_names_that_no_file_can_have_get_one_line(tmp_path: Path, name: str, splits: list[str]) -> None:
    root = write_coco(tmp_path / 'set', {split: PICTURES[split] for split in splits})
    edit(root / 'annotations' / 'train.json', lambda content: content['images'][0].update(file_name=name))
    with pytest.raises(InputError):
        split = find_data(root).splits['train' if len(splits) > 1 else 'val']
        content = read_annotations(str(split.annotations), for_evaluation=False)
        check_images_exist([*content['images'], {'file_name': name}], str(split.images), 'train.json')
    edit(root / 'annotations' / 'train.json', lambda content: content['images'][0].pop('width'))
    with pytest.raises(InputError, match='image 1 has no width'):
        find_data(root)


def test_a_box_is_refused_as_such_and_not_for_lack_of_an_area(root: Path) -> None:
    edit(root / 'annotations' / 'train.json', lambda content: content['annotations'][0].update(bbox=[1, 2, 3, None]))
    edit(root / 'annotations' / 'train.json', lambda content: content['annotations'][0].pop('area'))
    with pytest.raises(InputError, match='annotation 1 has bbox'):
        find_data(root)


def test_two_formats_in_a_folder_are_said(tmp_path: Path) -> None:
    root = write_yolo(write_voc(tmp_path / 'a', PICTURES), PICTURES)
    data = find_data(root)
    assert data.format == 'YOLO' and data.remarks[-1] == (
        'there is VOC (Annotations/) as well, which is not used: to take it, name its data.yaml or Annotations/, or '
        'put it into a folder of its own')
    assert find_data(root / 'Annotations').format == 'VOC'
    write_coco(tmp_path / 'b', PICTURES).joinpath('annotations').rename(root / 'annotations')
    (root / 'Annotations').rename(root / 'xml')
    assert find_data(root).format == 'COCO' and find_data(root / 'data.yaml').format == 'YOLO'


@pytest.mark.parametrize('change, message', [
    (lambda path: path, 'there is no data set in it .expected: COCO: '),
    (lambda path: path / 'none', 'none: no such folder'),
    (lambda path: (path / 'a.txt').write_text('') * 0 or path / 'a.txt', 'a data set is a folder, a COCO file'),
    (lambda path: (path / 'a.json').write_text('[]') * 0 or path / 'a.json', 'is not in COCO format'),
    (lambda path: (path / 'a.json').write_bytes(b'{"\xe9": 1}') * 0 or path / 'a.json', 'is not text in UTF-8'),
])
def test_what_is_no_data_set_gets_one_line(tmp_path: Path, change: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        find_data(change(tmp_path))
    assert '\n' not in str(caught.value)
