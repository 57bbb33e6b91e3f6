"""The doctor for data sets: a fault that is put into a sound set is found, and the verdict is what training does."""
from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

import cv2
import mutated_annotations
import numpy as np
import pytest
from PIL import Image
from seeded import CLASSES, FAULTS, IMAGES, box, compose, copied, cut, edited, picture
from three_formats import compose_pictures, write_yolo

from mmmamba import __main__ as program
from mmmamba.analysis.data_check import check_data
from mmmamba.analysis.data_check.findings import KINDS
from mmmamba.analysis.data_check.html_report import PICTURES, html_report
from mmmamba.analysis.data_check.images import read_images
from mmmamba.analysis.data_check.text_report import EXAMPLES, text_report
from mmmamba.datasets import CheckedCocoDataset
from mmmamba.datasets.formats import find_data
from mmmamba.errors import InputError

IMAGE_SIZE = (96, 96)
FILES = int(os.environ.get('MUTATED_FILES', '24'))
HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>&'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return compose(tmp_path / 'data')


def train(root: Path) -> None:
    """Reads a data set as a training and its validation do, to the first fault that stops them."""
    data = find_data(root)
    for name in ('train', 'val'):
        split = data.splits[name]
        dataset = CheckedCocoDataset(
            ann_file=str(split.annotations), data_prefix={'img': f'{split.images}/'},
            metainfo={'classes': data.classes}, filter_cfg={'filter_empty_gt': False}, test_mode=name == 'val',
            serialize_data=False,
            pipeline=[{'type': 'LoadImageFromFile'},
                      {'type': 'Resize', 'scale': IMAGE_SIZE, 'keep_ratio': True}])
        for index in range(len(dataset)):
            dataset.prepare_data(index)


def stop_of(root: Path) -> str | None:
    """What a training and its validation stop at, if at anything."""
    try:
        train(root)
    except InputError as error:
        return str(error)
    return None


def test_a_sound_set_has_no_findings(root):
    checked = check_data(root, IMAGE_SIZE)
    assert checked.report.findings == [] and checked.report.verdict == 'training can start'
    for split, count in IMAGES.items():
        summary = checked.report.splits[split]
        assert (summary.images, summary.empty, summary.objects) == (count, 0, 2 * count)
        assert summary.classes == dict.fromkeys(CLASSES, count)
        assert summary.sizes == {'small': 2 * count, 'medium': 0, 'large': 0}
        assert summary.image_sizes == {'96 x 64': count}
        assert summary.scaled_sides['16 – 32'] == summary.aspect_ratios['0.5 – 0.8'] == 2 * count
        assert summary.crowding['2 – 3'] == count == sum(summary.crowding.values())


@pytest.mark.parametrize('name', FAULTS)
@pytest.mark.usefixtures('mmdet_scope')
def test_a_fault_is_found_and_the_verdict_is_what_training_does(name, root):
    kind, severity, put = FAULTS[name]
    put(root)
    report = check_data(root, IMAGE_SIZE).report
    assert (kind, severity) in {(item.kind, item.severity) for item in report.findings}, report.findings
    stopped = stop_of(root)
    assert report.can_train == (stopped is None), stopped
    if stopped:
        assert report.verdict.startswith('training cannot start: ')


@pytest.mark.usefixtures('mmdet_scope')
def test_the_verdict_on_files_with_faults_anywhere_is_what_training_does(tmp_path):
    """Also for what no list of faults has: the check goes on after each, and never fails itself."""
    content = mutated_annotations.compose(tmp_path)
    for split in ('train', 'val'):
        (tmp_path / split).symlink_to('img')
    (tmp_path / 'annotations').mkdir()
    for seed in range(FILES):
        rng = np.random.default_rng(seed)
        done = []
        for split in ('train', 'val'):
            changes, text = mutated_annotations.mutate(content, rng, int(rng.integers(0, 3)))
            done += changes
            (tmp_path / 'annotations' / f'{split}.json').write_bytes(text)
        checked = check_data(tmp_path, IMAGE_SIZE)
        html_report(checked), text_report(checked.report), json.dumps(checked.report.as_json())
        stopped = stop_of(tmp_path)
        assert checked.report.can_train == (stopped is None), f'{seed}: {done}: {stopped}: {checked.report.verdict}'


def test_every_kind_has_a_fault_here():
    assert {kind for kind, _, _ in FAULTS.values()} == set(KINDS)


def test_all_faults_of_a_file_are_told_with_their_images_and_the_rest_is_checked(root):
    for change in (box(1, 2, 3, None), box(1, 2, 3, None, id=98, image_id=2), box(5, 5, 1, 1, id=97)):
        change(root)
    report = check_data(root, IMAGE_SIZE).report
    faults = [item for item in report.findings if item.kind == 'annotation']
    assert [(item.file, item.split) for item in faults] == [('1.png', 'train'), ('2.png', 'train')]
    assert {item.kind for item in report.findings} == {'annotation', 'tiny'}  # and the line of find_data only once
    assert report.verdict.endswith('(and 1 more error)')


def test_what_training_corrects_is_no_fault_of_a_file_that_it_refuses(root):
    box(1, 2, 3, None)(root)
    for split in IMAGES:
        edited(split, lambda content: [item.pop('iscrowd') for item in content['annotations']])(root)
        (root / split).rename(root / f'{split}2017')
    report = check_data(root, IMAGE_SIZE).report
    assert [item.kind for item in report.findings] == ['annotation'] and set(report.splits) == set(IMAGES)


def test_every_faulty_label_file_is_told_with_its_split(tmp_path):
    pictures = {'train': compose_pictures(5), 'val': compose_pictures(3, 1), 'test': compose_pictures(2, 2)}
    root = write_yolo(tmp_path / 'set', pictures)
    for name in ('train/000', 'train/002', 'val/001'):
        (root / 'labels' / f'{name}.txt').write_text('0 5 5 5 5')
    report = check_data(root, IMAGE_SIZE).report
    assert [(item.kind, item.split) for item in report.findings] == [
        ('labels', 'train'), ('labels', 'train'), ('labels', 'val')]
    with pytest.raises(InputError, match='000.txt, line 1: 5 is outside .* 2 more label files are faulty'):
        find_data(root)


@pytest.mark.parametrize('quick', [False, True])
def test_damaged_images_that_a_conversion_left_out_are_told(quick, tmp_path):
    root = write_yolo(tmp_path / 'set', {'train': compose_pictures(5), 'val': compose_pictures(3, 1)})
    (root / 'images' / 'val' / '001.png').write_bytes(b'')
    (root / 'images' / 'train' / '._000.png').write_bytes(b'of macOS')
    (root / 'images' / 'train' / '009.png').symlink_to('009.png')
    found = [item for item in check_data(root, IMAGE_SIZE, quick).report.findings if item.kind != 'empty']
    assert [(item.kind, item.split, item.file) for item in found] == [('unreadable', 'val', '001.png')]


@pytest.mark.parametrize('text', ['{', '[]', '{"images": 3}', '{"images": [{"id": []}], "annotations": {}}', ''])
def test_a_file_that_is_no_annotation_file_is_a_finding(text, root):
    for split in IMAGES:
        (root / 'annotations' / f'{split}.json').write_text(text)
    report = check_data(root, IMAGE_SIZE).report
    assert not report.can_train and 'train.json' in report.verdict
    html_report(check_data(root, IMAGE_SIZE))


def test_nothing_in_a_test_split_keeps_training_from_going_on(root, monkeypatch):
    (root / 'annotations' / 'val.json').rename(root / 'annotations' / 'test.json')
    (root / 'val').rename(root / 'test')
    compose(root.parent / 'other')
    for name in ('annotations/val.json', 'val'):
        (root.parent / 'other' / name).rename(root / name)
    found = find_data(root)
    split = found.splits['val']
    test = dataclasses.replace(split, annotations=root / 'annotations' / 'test.json', images=root / 'test')
    monkeypatch.setattr('mmmamba.analysis.data_check.check.find_data', lambda _: dataclasses.replace(
        found, splits={**found.splits, 'test': test}))
    cut('test/1.png')(root)
    (root / 'test' / '2.png').unlink()
    report = check_data(root, IMAGE_SIZE).report
    assert report.can_train
    assert {('unreadable', 'warning'), ('missing_image', 'warning')} <= {
        (item.kind, item.severity) for item in report.findings if item.split == 'test'}


@pytest.mark.parametrize('ending', ['jpg', 'png', 'webp', 'tiff'])
def test_an_image_turned_by_its_exif_data_has_the_size_that_training_sees(ending, root):
    """Versions of OpenCV differ in which formats they turn."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = root / 'train' / f'2.{ending}'
    copied('train/2.png', f'train/2.{ending}', exif=exif)(root)
    sizes = [read_images([path], quick)[path].size for quick in (False, True)]
    assert sizes[0] == sizes[1] and (sizes[0] == (64, 96) or ending != 'jpg')


@pytest.mark.parametrize('quick', [False, True])
def test_quick_finds_what_headers_tell(quick, root):
    FAULTS['16 bits'][2](root)
    copied('train/3.png', 'val/1.png')(root)
    picture('val/2.png', (50, 50, 3), size=False)(root)
    cut('train/4.png')(root)
    copied('train/5.png', 'train/6.png', format='JPEG', quality=60)(root)
    kinds = {item.kind for item in check_data(root, IMAGE_SIZE, quick).report.findings}
    assert {'leak', 'deep', 'size_differs'} <= kinds
    assert kinds & {'unreadable', 'near_duplicate'} == (set() if quick else {'unreadable', 'near_duplicate'})


def test_brightness_and_scale_do_not_hide_a_copy_and_flat_pictures_are_none(root):
    picture = cv2.imread(str(root / 'train' / '1.png'))
    cv2.imwrite(str(root / 'train' / '2.png'), cv2.resize(picture // 2 + 60, (192, 128)))
    for key, value in (('3', 40), ('4', 200)):
        cv2.imwrite(str(root / 'train' / f'{key}.png'), np.full((64, 96, 3), value, np.uint8))
    found = [item for item in check_data(root, IMAGE_SIZE).report.findings if 'duplicate' in item.kind]
    assert [(item.file, item.other) for item in found] == [('2.png', ('train', '1.png'))]


def test_hostile_names_are_text_and_the_page_loads_nothing(root):
    name = HOSTILE.replace('/', '')
    (root / 'train' / '1.png').rename(root / 'train' / f'{name}.png')
    for split in IMAGES:
        edited(split, lambda content: content['categories'][0].update(name=HOSTILE))(root)
    edited('train', lambda content: content['images'][0].update(file_name=f'{name}.png'))(root)
    box(0, 0, 96, 64)(root)
    cut('train/2.png')(root)
    with suppress(OSError):  # Windows has no such names
        (root / 'train' / 'un\x1b[31mlisted\u202e.png').write_bytes(b'')
    checked = check_data(root, IMAGE_SIZE)
    html, text = html_report(checked), text_report(checked.report)
    assert '<img' not in html and '<script' not in html and html.count('<svg viewBox') >= 1
    assert '&lt;script&gt;alert(2)&lt;/script&gt;' in html
    assert re.findall(r'(?:href|src)="(?!#|data:image/jpeg;base64,)', html) == []
    assert 'http' not in html and 'url(' not in html and '@import' not in html
    assert '\x1b' not in text + html and '\u202e' not in text + html


def test_long_lists_are_cut_and_say_so(root):
    def add(content: dict) -> None:
        for number in range(20):
            content['annotations'].append({'id': 100 + number, 'image_id': 1, 'category_id': 1, 'area': 1,
                                           'bbox': [4 * number, 50, 1, 1], 'iscrowd': 0})
    edited('train', add)(root)
    checked = check_data(root, IMAGE_SIZE)
    assert f'… and {20 - EXAMPLES} more' in text_report(checked.report)
    html = html_report(checked)
    assert html.count('<figure>') == PICTURES and f'{20 - PICTURES} more are in report.json' in html


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, 'argv', ['mmmamba', 'check-data', *map(str, arguments)])
    try:
        program.main()
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.mark.parametrize('name, status, last', [
    ('', 0, 'training can start'), ('leak', 0, 'training can start; 1 warning'),
    ('malformed box', 2, 'training cannot start: ')])
def test_files_status_and_last_line_of_the_command(name, status, last, root, tmp_path, monkeypatch, capsys):
    if name:
        FAULTS[name][2](root)
    out = tmp_path / 'out'
    assert call(monkeypatch, root, '--out', out, '--image-size', *IMAGE_SIZE) == status
    assert capsys.readouterr().out.splitlines()[-1].startswith(last)
    report = json.loads((out / 'report.json').read_text())
    assert report['can_train'] == (status == 0) and report['verdict'].startswith(last)
    assert [item['kind'] for item in report['findings']] == ([FAULTS[name][0]] if name else [])
    assert '</html>' in (out / 'index.html').read_text()


def test_sizes_of_objects_are_judged_in_a_rectangle(root, tmp_path, monkeypatch, capsys):
    """Images of 96 x 64 fit into 32 x 32 at a third, and at their own size into a rectangle that lies or stands."""
    sides = {}
    for height, width in ((32, 32), (64, 96), (128, 64)):
        assert call(monkeypatch, root, '--out', tmp_path, '--image-size', height, width) == 0
        report = json.loads((tmp_path / 'report.json').read_text())
        assert report['image_size'] == [width, height]
        sides[height, width] = report['splits']['train']['scaled_sides']
        assert f'at {width} x {height}.' in (tmp_path / 'index.html').read_text()
    assert sides[64, 96] == sides[128, 64] != sides[32, 32]


def test_a_wrong_call_is_one_line(tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, tmp_path / 'nothing') == 2
    assert capsys.readouterr().err.startswith('error: no such file or folder: ')
    (tmp_path / 'file').touch()
    assert call(monkeypatch, tmp_path, '--out', tmp_path / 'file' / 'out') == 2
    assert capsys.readouterr().err.startswith('error: --out: cannot make the folder ')
    for sides, problem in (([0], "must be a whole number from 1, not '0'\n"),
                           ([640, 100], 'must be a multiple of 32, such as 96 or 128, not 100\n'),
                           ([32, 64, 96], '--image-size takes one side or two (H W), got 3\n')):
        assert call(monkeypatch, tmp_path, '--image-size', *sides) == 2
        assert capsys.readouterr().err.endswith(problem)
