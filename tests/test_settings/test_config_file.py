"""What a config sets at its top level reaches what it inherits, or is one line."""
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from recipes_of_configs import CONFIGS

from mmmamba.datasets.formats import coco_datasets
from mmmamba.engine import ClassCountHook
from mmmamba.errors import InputError
from mmmamba.model_config import parts
from mmmamba.package_files import find_config
from mmmamba.settings import config_next_to, load_config, require_carried_over
from mmmamba.settings.data import LOADERS

BCCD = f"_base_ = '{CONFIGS}/mamba_yolo/mamba-yolo_t_1xb16-30e_bccd.py'\n"
FASTER_RCNN = "_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'\n"


@pytest.fixture
def write(tmp_path):
    def config(text: str, name: str = 'mine.py') -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path
    return config


def datasets(cfg: Config) -> list:
    return [dataset for loader in LOADERS for dataset in coco_datasets(cfg[loader].dataset)]


def classes_of_heads(cfg: Config) -> set[int]:
    return {part.num_classes for part in parts(cfg.model) if 'num_classes' in part}


@pytest.mark.parametrize('base', [BCCD, FASTER_RCNN])
def test_folder_classes_and_length_reach_loaders_heads_and_evaluators(write, base, capsys):
    path = write(base + "data_root = 'mine/'\nmetainfo = dict(classes=('bolt', 'nut'))\nmax_epochs = 6\n")
    cfg = load_config(path)
    assert {dataset.data_root for dataset in datasets(cfg)} == {'mine/'}
    assert {tuple(dataset.metainfo.classes) for dataset in datasets(cfg)} == {('bolt', 'nut')}
    assert classes_of_heads(cfg) == {2}
    assert cfg.val_evaluator.ann_file.startswith('mine/annotations/') and cfg.train_cfg.max_epochs == 6
    assert cfg.filename == str(path)
    said = capsys.readouterr().err.strip().splitlines()
    assert said == [
        "mine.py: carried over to what it inherits: data_root = 'mine/'; metainfo = 2 classes; max_epochs = 6"]


def test_image_size_follows_and_the_file_sees_the_changed_base(write):
    cfg = load_config(write(BCCD + "img_scale = (256, 192)\nresize = _base_.test_pipeline[1]\n"
                                   "copied = {{_base_.img_scale}}\nhere = '{{ fileBasename }}'\n"))
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert tuple(pipeline[0].img_scale) == (256, 192) and tuple(pipeline[1].border) == (-128, -96)
    assert tuple(cfg.resize.scale) == tuple(cfg.copied) == (256, 192)
    assert cfg.here == 'mine.py'


def test_the_number_of_classes_alone_reaches_the_heads(write):
    assert classes_of_heads(load_config(write(FASTER_RCNN + 'num_classes = 5\n'))) == {5}


@pytest.mark.parametrize('text', [
    "data_root: str = 'mine/'\n", "data_root, other = 'mine/', 1\n", "if True:\n    data_root = 'mine/'\n",
    "data_root = 'mi'\ndata_root += 'ne/'\n"])
def test_a_variable_may_be_set_by_any_statement_and_the_base_by_an_expression(write, text):
    base = f"_base_ = ['{CONFIGS}/mamba_yolo/' + 'mamba-yolo_t_1xb16-30e_bccd.py']\n"
    assert {dataset.data_root for dataset in datasets(load_config(write(base + text)))} == {'mine/'}


def test_the_first_of_several_processes_says_what_was_carried_over(write, capsys, monkeypatch):
    path = write(BCCD + 'max_epochs = 6\n')
    for rank, said in (('', True), ('1', False), ('0', True)):
        monkeypatch.setenv('RANK', rank)
        load_config(path)
        assert bool(capsys.readouterr().err) == said
    monkeypatch.setenv('SLURM_PROCID', '1')
    monkeypatch.delenv('RANK')
    load_config(path)
    assert not capsys.readouterr().err


def test_what_the_file_sets_itself_wins(write, capsys):
    text = BCCD + '\n'.join([
        "data_root = 'mine/'", "metainfo = dict(classes=('bolt', 'nut'))", 'num_classes = 7', 'max_epochs = 6',
        "val_dataloader = dict(dataset=dict(data_root='data/bccd/'))", 'train_cfg = dict(max_epochs=4)', ''])
    cfg = load_config(write(text))
    assert cfg.val_dataloader.dataset.data_root == 'data/bccd/' and cfg.train_cfg.max_epochs == 4
    assert cfg.train_dataloader.dataset.dataset.data_root == 'mine/' and classes_of_heads(cfg) == {7}


def test_bases_of_the_users_own_carry_over_too(write):
    write(BCCD + "data_root = 'a'\nmax_epochs = 6\n", 'base.py')
    cfg = load_config(write("_base_ = './base.py'\nmetainfo = dict(classes=('bolt',))\n"))
    assert {dataset.data_root for dataset in datasets(cfg)} == {'a'} and cfg.train_cfg.max_epochs == 6
    assert classes_of_heads(cfg) == {1}
    cfg = load_config(write("_base_ = ['./base.py']\ndata_root = 'b'\n"))
    assert {dataset.data_root for dataset in datasets(cfg)} == {'b'} and cfg.train_cfg.max_epochs == 6


@pytest.mark.parametrize('text', [
    BCCD + "work_dir = 'x'\nmax_epochs = 30\n",
    "data_root = 'x'\nmodel = dict(type='A')\n",
    "_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'\ndata_root = 'x'\nmax_epochs = 3\n",
])
def test_where_nothing_is_inherited_nothing_changes(write, text, capsys):
    path = write(text)
    cfg = Config.fromfile(path)
    assert load_config(path).to_dict() == cfg.to_dict()
    assert not capsys.readouterr().err
    require_carried_over(cfg)


@pytest.mark.parametrize('name', ['mamba-yolo_t_1xb16-30e_bccd', 'mask-rcnn_vmamba-t_fpn_1x_coco'])
def test_configs_of_the_package_are_read_as_they_are(name, capsys):
    assert load_config(name).to_dict() == Config.fromfile(find_config(name)).to_dict()
    assert not capsys.readouterr().err


@pytest.mark.parametrize('text, words', [
    (BCCD + 'img_scale = (300, 300)\n', r'img_scale = \(300, 300\) at the top level .* multiples of 32'),
    (BCCD + "img_scale = 'large'\n", "img_scale = 'large' at the top level of the config"),
    (BCCD + 'max_epochs = 0\n', 'max_epochs = 0 at the top level .* positive'),
    (BCCD + 'max_epochs = 2.5\n', 'max_epochs = 2.5 at the top level of the config must be a positive whole number'),
    (BCCD + 'num_classes = "3"\n', "num_classes = '3' at the top level of the config must be a positive"),
    (BCCD + 'data_root = None\n', 'data_root = None at the top level of the config must be a folder, as text'),
    (BCCD + 'metainfo = 3\n', 'metainfo = 3 at the top level'),
    (BCCD + 'metainfo = dict(classes=("bolt"))\n', 'metainfo = .* must be a dict, with a list of names'),
    (BCCD + 'metainfo = dict(classes=())\n', 'metainfo = .* must be a dict, with a list of names'),
    (BCCD + 'img_scale = (640, 640, 3)\n', r'img_scale = \(640, 640, 3\) at .* must be a side in pixels, or \(width'),
    (BCCD + 'max_epochs = (3\n', 'mine.py, or what it inherits, is not valid Python: .* line 2: max_epochs = .3'),
    ('from a import b\n' + BCCD, 'mine.py: .*lazy_import'),
    (FASTER_RCNN + 'data_root = 3\n', 'data_root = 3 at the top level'),
])
def test_what_cannot_be_carried_over_is_one_line(write, text, words):
    with pytest.raises(InputError, match=words) as error:
        load_config(write(text))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('setting, place', [
    ("data_root = 'mine/'", 'data_root'), ('max_epochs = 6', 'train_cfg.max_epochs'), ('img_scale = 256', 'scale'),
])
def test_a_run_that_would_not_follow_the_file_is_refused(write, setting, place):
    path = write(f'{BCCD}{setting}\n')
    with pytest.raises(InputError, match=f'{path} sets {setting} at its top level, but .*{place}'):
        ClassCountHook().before_run(SimpleNamespace(cfg=Config.fromfile(path)))
    cfg = load_config(path)
    cfg.train_cfg.max_epochs = 1  # as --cfg-options do
    require_carried_over(cfg)


def test_the_config_next_to_a_checkpoint_is_the_one_that_training_left(write, tmp_path):
    checkpoint = write('weights', 'epoch_1.pth')
    write(BCCD)  # what was trained, and a script: neither is a whole config of plain settings
    write("model = dict(type='A')\ntest_dataloader = dict(batch_size=exit(3))\n", 'script.py')
    write('model = (\n', 'broken.py')
    with pytest.raises(InputError, match='and there is none: name it, as in mmmamba predict CONFIG'):
        config_next_to(checkpoint)
    for name in ('left.py', '20260131_235959.py'):  # a test leaves the second
        Config.fromfile(tmp_path / 'mine.py').dump(tmp_path / name)
    assert config_next_to(str(checkpoint)) == tmp_path / 'left.py'
    Config.fromfile(tmp_path / 'left.py').dump(tmp_path / 'other.py')
    with pytest.raises(InputError, match=r'there are 2 \(left.py, other.py\)'):
        config_next_to(checkpoint)
    with pytest.raises(InputError, match=r'no such file: .*absent\.pth'):
        config_next_to(tmp_path / 'absent.pth')
