"""Layouts and oddities of YOLO's format: read right, or refused in one line."""
from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from three_formats import CLASSES, compose_pictures, write_yolo

from mmmamba.datasets.formats import DataFolder, find_data
from mmmamba.errors import InputError

PICTURES = {'train': compose_pictures(5, 1), 'val': compose_pictures(3, 2, 'v')}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ultralytics' layout, of which 1 train image (003) has no object."""
    return write_yolo(tmp_path / 'set', PICTURES)


def read(data: DataFolder, split: str = 'train') -> dict:
    content = json.loads(data.splits[split].annotations.read_text())
    assert all((data.splits[split].images / image['file_name']).is_file() for image in content['images'])
    return content


def boxes(data: DataFolder, split: str = 'train') -> list[tuple]:
    content = read(data, split)
    names = {image['id']: Path(image['file_name']).name for image in content['images']}
    return [(names[item['image_id']], item['category_id'], *item['bbox']) for item in content['annotations']]


def expected(split: str = 'train') -> list[tuple]:
    return [(picture.name, label + 1, *box) for picture in PICTURES[split] for label, *box in picture.objects]


def roboflow(root: Path) -> None:
    """``train/images``, ``valid/images``, and a data.yaml with paths that lead out of its folder."""
    for split, name in (('train', 'train'), ('val', 'valid')):
        for kind in ('images', 'labels'):
            (root / name).mkdir(exist_ok=True)
            (root / kind / split).rename(root / name / kind)
    (root / 'data.yaml').write_text(f'train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 3\n'
                                    f'names: {list(CLASSES)}\nroboflow:\n  version: 1\n')


def without_yaml(root: Path) -> None:
    (root / 'data.yaml').unlink()
    (root / 'labels' / 'classes.txt').write_text('\r\n'.join([*CLASSES, '']))


def roboflow_without_yaml(root: Path) -> None:
    roboflow(root)
    (root / 'data.yaml').unlink()
    (root / 'classes.txt').write_text('\n'.join(CLASSES))


def darknet(root: Path) -> None:
    """CVAT's: lists of paths that begin with a folder that is not there, labels next to the images."""
    (root / 'obj_train_data').mkdir()
    for split in PICTURES:
        lines = []
        for kind in ('images', 'labels'):
            for path in (root / kind / split).iterdir():
                path.rename(root / 'obj_train_data' / path.name)
                lines += [f'data/obj_train_data/{path.name}'] if kind == 'images' else []
        (root / ('valid.txt' if split == 'val' else 'train.txt')).write_text('\n'.join(lines))
    (root / 'data.yaml').unlink()
    (root / 'obj.names').write_text('\n'.join(CLASSES))


def beside(root: Path) -> None:
    for split in PICTURES:
        (root / split).mkdir()
        for kind in ('images', 'labels'):
            for path in (root / kind / split).iterdir():
                path.rename(root / split / path.name)
    shutil.rmtree(root / 'images')
    shutil.rmtree(root / 'labels')
    (root / 'data.yaml').unlink()
    (root / 'classes.txt').write_text('\n'.join(CLASSES))


def stale_path(root: Path) -> None:
    text = (root / 'data.yaml').read_text()
    (root / 'data.yaml').write_text(f'path: /home/somebody/set\n{text}')


def windows_yaml(root: Path) -> None:
    lines = ['\ufeffpath: C:\\sets\\set', 'train: images\\train', 'val: C:\\sets\\set\\images\\val', 'names:',
             *(f'  {key}: {name}' for key, name in enumerate(CLASSES)), '']
    (root / 'data.yaml').write_bytes('\r\n'.join(lines).encode())


def windows_lists(root: Path) -> None:
    for split in PICTURES:
        names = [f'D:\\old\\images\\{split}\\{path.name}' for path in (root / 'images' / split).iterdir()]
        (root / f'{split}.txt').write_bytes('\ufeff{}\r\n'.format('\r\n'.join(names)).encode())
    (root / 'data.yaml').write_text(f'train: train.txt\nval: [val.txt]\nnames: [{", ".join(CLASSES)}]')


def nested(root: Path) -> None:
    """Images in folders of folders, and one with a space."""
    for kind in ('images', 'labels'):
        folder = root / kind / 'train' / 'day 1' / 'left'
        folder.mkdir(parents=True)
        for path in list((root / kind / 'train').glob('00[01].*')):
            path.rename(folder / path.name)


def capitals(root: Path) -> None:
    for path in [*(root / 'images').rglob('*.png'), *(root / 'labels').rglob('*.txt')]:
        path.rename(path.with_name(f'{path.stem}{path.suffix.upper()}'))


def linked_images(root: Path) -> None:
    (root / 'images').rename(root.parent / 'elsewhere')
    (root / 'images').symlink_to(root.parent / 'elsewhere', target_is_directory=True)
    (root / 'images' / 'loop').symlink_to(root.parent / 'elsewhere', target_is_directory=True)


def no_label_of_a_negative(root: Path) -> None:
    (root / 'labels' / 'train' / '003.txt').unlink()


def marks_and_utf16(root: Path) -> None:
    path, other = root / 'labels' / 'train' / '000.txt', root / 'labels' / 'train' / '001.txt'
    path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes().replace(b'\n', b'\r\n\r\n'))
    other.write_text(other.read_text(), encoding='utf-16')


@pytest.mark.parametrize('change', [
    roboflow, without_yaml, roboflow_without_yaml, darknet, beside, stale_path, windows_yaml, windows_lists, nested,
    capitals, linked_images, no_label_of_a_negative, marks_and_utf16], ids=lambda change: change.__name__)
def test_layouts_give_the_same_objects(root: Path, change: Callable[[Path], None]) -> None:
    change(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob('*')}
    data = find_data(root)
    assert data.format == 'YOLO' and data.classes == CLASSES and set(data.splits) == {'train', 'val'}
    for split in PICTURES:
        found = [(name.replace('.PNG', '.png'), *rest) for name, *rest in boxes(data, split)]
        assert sorted(found) == sorted(expected(split))
        assert len(read(data, split)['images']) == len(PICTURES[split])
    assert {path: path.stat().st_mtime_ns for path in root.rglob('*')} == before
    assert all('\n' not in line for line in data.remarks)


def test_what_was_done_is_said(root: Path) -> None:
    stale_path(root)
    no_label_of_a_negative(root)
    train, labels = root / 'images' / 'train', root / 'labels' / 'train'
    (labels / 'stray.txt').write_text('')
    (labels / 'classes.txt').write_text('apple')
    text = (labels / '000.txt').read_text().splitlines()
    (labels / '000.txt').write_text('\n'.join([text[0], text[0], '', '0 0.98 0.5 0.06 0.2', '0 0.5 0.5 0.0 0.2']))
    (train / 'broken.png').write_bytes(b'')
    first, second = find_data(root).remarks
    assert first == ('YOLO (data.yaml), 5 + 3 images, 3 classes (apple, kiwi, pear); path: /home/somebody/set does '
                     f'not hold the images here, so {root} was taken')
    for part in (f'label files without an image: 1 ({labels}/stray.txt)', 'images without a label file, which have no '
                 f'objects: 2 ({train}/003.png, …)', f'images left out, which cannot be read: 1 ({train}/broken.png)',
                 f'lines left out, which repeat another one: 1 ({labels}/000.txt, line 2)',
                 f'boxes clipped to their image: 1 ({labels}/000.txt, line 4)',
                 f'boxes dropped, without area or outside their image: 1 ({labels}/000.txt, line 5)'):
        assert part in second
    width = PICTURES['train'][0].pixels.shape[1]
    x, _, w, _ = boxes(find_data(root))[1][2:]
    assert x + w == width


def test_class_numbers_with_gaps_are_labels_in_their_order(root: Path) -> None:
    (root / 'data.yaml').write_text('train: images/train\nval: images/val\nnames: {7: no, 0: 1, 2: kiwi}')
    for path in (root / 'labels').rglob('*.txt'):
        path.write_text(re.sub('^1', '7.0', path.read_text(), flags=re.MULTILINE))
    data = find_data(root)
    assert data.classes == ('1', 'kiwi', 'no')
    assert sorted(boxes(data)) == sorted((name, {1: 1, 2: 3, 3: 2}[label], *box)
                                         for name, label, *box in expected())


def test_polygons_are_masks(root: Path) -> None:
    height, width = PICTURES['train'][0].pixels.shape[:2]
    points = [8, 6, 24, 6, 24, 30, 8, 30.5]
    shares = ' '.join(f'{value / (height if index % 2 else width):.6f}' for index, value in enumerate(points))
    (root / 'labels' / 'train' / '000.txt').write_text(f'2 {shares}\n')
    found, *_ = read(find_data(root))['annotations']
    assert f'polygons among boxes: 1 ({root}/labels/train/000.txt, line 1)' in find_data(root).remarks[1]
    assert found['segmentation'] == [points] and found['bbox'] == [8, 6, 16, 24.5] and found['area'] == 388


def test_keypoints_are_left_out(root: Path) -> None:
    (root / 'data.yaml').write_text(f'kpt_shape: [2, 3]\n{(root / "data.yaml").read_text()}')
    for path in (root / 'labels').rglob('*.txt'):
        path.write_text(path.read_text().replace('\n', ' 0.5 0.5 2 0.1 0.1 1\n'))
    data = find_data(root)
    assert sorted(boxes(data)) == sorted(expected()) and 'keypoints are left out' in data.remarks[0]


def test_absolute_paths_in_a_list_may_be_anywhere_and_relative_ones_stay_inside(root: Path, tmp_path: Path) -> None:
    other = write_yolo(tmp_path / 'other', {'train': compose_pictures(2, 5, 'o')})
    listed = [*(other / 'images' / 'train').iterdir(), *(root / 'images' / 'train').iterdir()]
    (root / 'train.txt').write_text('\n'.join(map(str, listed)))
    (root / 'data.yaml').write_text(f'train: train.txt\nval: images/val\nnames: [{", ".join(CLASSES)}]')
    assert len(read(find_data(root))['images']) == 7
    (root / 'train.txt').write_text('./images/train/000.png\n\n../other/images/train/o000.png')
    with pytest.raises(InputError, match=r'train.txt, line 3: there is no image ../other/images/train/o000.png in'):
        find_data(root)


def test_a_single_image_is_train_and_val(tmp_path: Path) -> None:
    data = find_data(write_yolo(tmp_path / 'set', {'train': compose_pictures(1)}))
    assert read(data) == read(data, 'val') and 'the only image with objects is in train and in val' in data.remarks[0]


def test_the_yaml_may_be_named_and_be_elsewhere(root: Path, tmp_path: Path) -> None:
    settings = tmp_path / 'settings' / 'mine.yaml'
    settings.parent.mkdir()
    settings.write_text(f'path: {root}\n{(root / "data.yaml").read_text()}')
    for path in (settings, settings.parent):
        data = find_data(path)
        assert sorted(boxes(data)) == sorted(expected()) and f'images are from {root}' in data.remarks[0]
    (root / 'data.yaml').rename(root / 'a.yaml')
    shutil.copy(root / 'a.yaml', root / 'b.yaml')
    with pytest.raises(InputError, match='several files with settings of a data set: a.yaml, b.yaml; name the one'):
        find_data(root)
    assert find_data(root / 'b.yaml').classes == CLASSES


LABEL = 'labels/train/000.txt'


@pytest.mark.parametrize('file, text, message', [
    (LABEL, '\n\n3 0.5 0.5 0.1 0.1', r'000.txt, line 3: class 3 has no name; the classes are 0 to 2'),
    (LABEL, '0 0.5 0.5 0.1', r'000.txt, line 1: there are 4 numbers; a box has 5'),
    (LABEL, '0 0.5 0.5 0.1 0.1 0.9', r'line 1: there are 6 numbers'),
    (LABEL, '0 320 240 20 20', r"line 1: 320 is outside of 0 to 1: YOLO's coordinates are shares"),
    (LABEL, '0 0.5 0.5 -0.1 0.1', r'line 1: the size -0.1 of a box is negative'),
    (LABEL, '0 0.5 nan 0.1 0.1', r"line 1: 'nan' is no number"),
    (LABEL, '0.5 0.5 0.5 0.1 0.1', r"line 1: '0.5' is no class number"),
    (LABEL, '1e300 0.5 0.5 0.1 0.1', r"line 1: '1e300' is no class number"),
    (LABEL, b'0 0.5 0.5 0.1 0.1\n\xe9', r'000.txt, line 2: this is not text in UTF-8'),
    ('data.yaml', 'train: images/train\nnames: [a, b, c', r'data.yaml, line \d: this is not valid YAML'),
    ('data.yaml', '!!python/object/apply:os.system [exit]', 'there are no settings in it'),
    ('data.yaml', 'train: images/none\nnames: [a]', r'data.yaml: train: there is no images/none in'),
    ('data.yaml', 'train: images/train\nval: images/none\nnames: [a]', r'val: there is no images/none in'),
    ('data.yaml', 'train: images/train\nnames: [a, b]\nnc: 3', 'names has 2 names and nc is 3'),
    ('data.yaml', 'train: images/train\nnames: [a, b, a]', "classes 0 and 2 have the same name 'a'"),
    ('data.yaml', 'train: images/train\nnames: {a: 0}', "names has the key 'a'"),
    ('data.yaml', f'train: images/train\nnc: 1{"0" * 9}', "nc is '1000000000', not the number of classes"),
    ('data.yaml', f'train: images/train\nnc: 1{"0" * 5000}', "nc is '1000"),
    ('data.yaml', 'train: {a: b}\nnames: [a]', 'train must be a path or a list of paths'),
    ('data.yaml', 'val: images/val\nnames: [a]', 'train is missing'),
])
def test_mistakes_get_one_line(root: Path, file: str, text: str | bytes, message: str,
                                    mistake: Callable[..., str]) -> None:
    assert re.search(message, mistake(root, file, text))


def test_a_split_without_images_is_refused_or_left_out(root: Path) -> None:
    (root / 'data.yaml').unlink()
    for split in ('train', 'val'):
        names = sorted(path.name for path in (root / 'images' / split).iterdir())
        (root / f'{split}.txt').write_text('\n'.join(f'images/{split}/{name}' for name in names))
    (root / 'test.txt').write_text('')
    data = find_data(root)
    assert set(data.splits) == {'train', 'val'} and 'test is left out' in data.remarks[0]
    (root / 'val.txt').write_text('')
    with pytest.raises(InputError, match='there is no image for val'):
        find_data(root)


@pytest.mark.parametrize('name', ['a\nb.png', '\udcff.png'])
def test_an_image_whose_name_no_annotation_file_may_have_is_named(root: Path, name: str) -> None:
    (root / 'images' / 'train' / '000.png').rename(root / 'images' / 'train' / name)
    with pytest.raises(InputError, match=r'images/train/.*\.png.*: rename the image') as caught:
        find_data(root)
    str(caught.value).encode()


def test_a_label_file_of_two_images_is_refused(root: Path) -> None:
    shutil.copy(root / 'images' / 'train' / '000.png', root / 'images' / 'train' / '000.jpg')
    with pytest.raises(InputError, match='000.txt is the label file of two images, 000.jpg and 000.png'):
        find_data(root)


def test_labels_without_objects_or_names(root: Path) -> None:
    (root / 'data.yaml').unlink()
    data = find_data(root)
    assert data.classes == ('0', '1', '2') and 'classes have no names' in data.remarks[0]
    for path in (root / 'labels').rglob('*.txt'):
        path.write_text('')
    with pytest.raises(InputError, match='there is no data set in it|none of its images has an object'):
        find_data(root)
