"""Conversions are made once, follow the files, and are complete or not there."""
from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from PIL import Image
from three_formats import compose_pictures, write_coco, write_yolo

from mmmamba.datasets.formats import DataFolder, announce, cache, conversion, find_data
from mmmamba.errors import InputError
from mmmamba.files import write_json


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_yolo(tmp_path / 'set', {'train': compose_pictures(5), 'val': compose_pictures(2, 1)})


def test_a_set_is_converted_once_and_again_when_a_file_changes(root: Path, own_cache: Path) -> None:
    first = find_data(root)
    with mock.patch.object(conversion, 'read_sizes', side_effect=AssertionError('converted again')):
        assert find_data(root) == first
        changes = (lambda: (root / 'labels' / 'train' / '003.txt').write_text('0 0.5 0.5 0.2 0.2\n'),
                   lambda: (root / 'images' / 'train' / '004.png').unlink(),
                   lambda: (root / 'data.yaml').write_text((root / 'data.yaml').read_text().replace('pear', 'plum')),
                   lambda: os.utime(root / 'images' / 'val' / '000.png', (1, 1)))
        for change in changes:
            change()
            with pytest.raises(AssertionError, match='converted again'):
                find_data(root)
    assert find_data(root).classes == ('apple', 'kiwi', 'plum')
    assert len([path for path in own_cache.iterdir() if path.is_dir()]) == len(os.listdir(own_cache)) == 2


def test_a_corrected_copy_follows_images_in_folders_of_folders(tmp_path: Path) -> None:
    pictures = compose_pictures(3)
    root = write_coco(tmp_path / 'set', {'train': pictures, 'val': pictures})
    path = root / 'annotations' / 'train.json'
    content = json.loads(path.read_text())
    content['images'] = [{'id': image['id'], 'file_name': f'a/b/{image["file_name"]}'} for image in content['images']]
    path.write_text(json.dumps(content))
    inner = shutil.copytree(root / 'val', root / 'train' / 'a' / 'b')

    def width() -> int:
        return json.loads(find_data(root).splits['train'].annotations.read_text())['images'][0]['width']

    assert width() == pictures[0].pixels.shape[1]
    Image.new('RGB', (300, 200)).save(inner / pictures[0].name)
    assert width() == 300


def test_a_home_that_may_not_be_read_is_none(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a container whose HOME is that of another user."""
    denied, stat, mkdir = str(tmp_path / 'home'), os.stat, os.mkdir

    def refuse(original: Callable) -> Callable:
        def call(path: object, *args: object, **kwargs: object) -> object:
            if str(path).startswith(denied):
                raise PermissionError(13, 'Permission denied', str(path))
            return original(path, *args, **kwargs)
        return call

    monkeypatch.setenv('XDG_CACHE_HOME', denied)
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    monkeypatch.setattr(os, 'stat', refuse(stat))
    monkeypatch.setattr(os, 'mkdir', refuse(mkdir))
    assert tmp_path in find_data(root).splits['train'].annotations.parents


def test_nothing_is_kept_of_a_conversion_that_failed(root: Path, own_cache: Path) -> None:
    with mock.patch.object(cache, 'write_json', side_effect=InputError('no space left')), \
            pytest.raises(InputError, match='no space left'):
        find_data(root)
    assert not list(own_cache.iterdir())


def test_of_several_processes_one_converts_and_the_others_wait(root: Path, own_cache: Path) -> None:
    written, ready = [], threading.Barrier(2, timeout=30)

    def write(path: Path, content: object) -> None:
        written.append(path.name)
        time.sleep(0.1)
        write_json(path, content)

    def find(_: int) -> DataFolder:
        ready.wait()
        return find_data(root)

    with mock.patch.object(cache, 'write_json', write), ThreadPoolExecutor(2) as pool:
        first, second = pool.map(find, range(2))
    assert first == second and sorted(written) == ['data.json', 'train.json', 'val.json']
    assert len(list(own_cache.iterdir())) == 1


def test_several_may_convert_at_the_same_time_where_files_cannot_be_locked(root: Path, own_cache: Path) -> None:
    together = threading.Barrier(2, timeout=30)

    def write(path: Path, content: object) -> None:
        together.wait()  # neither finishes before the other has begun
        write_json(path, content)

    with mock.patch.object(cache, 'write_json', write), ThreadPoolExecutor(2) as pool, \
            mock.patch('fcntl.flock', side_effect=OSError(errno.ENOLCK, 'No locks available')):
        first, second = pool.map(find_data, [root, root])
    folder, = own_cache.iterdir()
    assert first == second and first.splits['train'].annotations == folder / 'train.json'
    assert json.loads((folder / 'train.json').read_text())['images'] and folder.stat().st_mode & 0o777 == 0o755


def test_how_it_was_taken_is_said_once_and_by_the_first_process(
        root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    data = find_data(root)
    monkeypatch.setenv('RANK', '1')
    announce(data)
    assert capsys.readouterr().out == ''
    monkeypatch.delenv('RANK')
    unique = replace(data, remarks=(str(root), ))
    announce(unique)
    announce(unique)
    assert capsys.readouterr().out == f'data: {root}\n'


def test_without_a_home_that_can_be_written_a_temporary_folder_is_used(
        root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'file').write_text('')
    (tmp_path / 'tmp').mkdir()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'tmp'))
    folder = find_data(root).splits['train'].annotations.parent
    assert folder.parent.parent == tmp_path / 'tmp' and find_data(root).splits['train'].annotations.parent == folder
    folder.parent.chmod(0o777)  # anybody could have put annotations there
    assert find_data(root).splits['train'].annotations.parent.parent != folder.parent
