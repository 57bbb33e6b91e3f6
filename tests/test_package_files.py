"""Configs by short name."""
from __future__ import annotations

from pathlib import Path

import pytest

from mmmamba.errors import InputError
from mmmamba.package_files import CONFIGS, TOOLS, find_config, model_name


def test_the_package_has_its_configs_and_tools() -> None:
    assert (CONFIGS / '_base_').is_dir() and (TOOLS / 'train.py').is_file()


@pytest.mark.parametrize('name, found', [
    ('mamba-yolo_t', 'mamba-yolo_t_8xb64-300e_coco'),
    ('yolov8-seg_n', 'yolov8-seg_n_8xb64-300e_coco'),
    ('mamba-yolo_t_no-rg', 'mamba-yolo_t_no-rg_8xb64-300e_coco'),
    ('retinanet_r18_fpn', 'retinanet_r18_fpn_1xb4-10e_bccd'),
    ('mask-rcnn_vmamba-t_fpn_ms-crop-3x_coco', 'mask-rcnn_vmamba-t_fpn_ms-crop-3x_coco'),
    ('mamba-yolo_t_demo.py', 'mamba-yolo_t_demo'),
])
def test_a_short_name(name: str, found: str) -> None:
    assert find_config(name).stem == found


def test_a_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'mamba-yolo_t.py').write_text('model = dict()')
    (tmp_path / 'mamba-yolo_t').write_text('notes: without an ending, it cannot be read as a config')
    monkeypatch.chdir(tmp_path)
    assert find_config('mamba-yolo_t.py') == Path('mamba-yolo_t.py')
    assert find_config('mamba-yolo_t').is_relative_to(CONFIGS)


def test_weights_are_no_config(tmp_path: Path) -> None:
    (tmp_path / 'epoch_1.pth').touch()
    with pytest.raises(InputError, match=r'epoch_1.pth is no config, which ends with .py'):
        find_config(tmp_path / 'epoch_1.pth')


@pytest.mark.parametrize('name, words', [
    ('mamba-yolo-t', 'did you mean mamba-yolo_t'),
    ('mask-rcnn_vmamba-t_fpn', 'the name of 2 configs: mask-rcnn_vmamba-t_fpn_1x_coco, '),
    ('/no/such.py', 'no such file: /no/such.py'),
])
def test_no_config_of_that_name(name: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        find_config(name)
    assert words in str(caught.value)


def test_every_config_is_found_by_the_name_of_its_file() -> None:
    for path in CONFIGS.glob('[!_]*/**/*.py'):
        assert find_config(path.stem) == path and path.stem.startswith(model_name(path))
