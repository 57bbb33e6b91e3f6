"""What of another detector's weights a model starts from, and what is said about it."""
from __future__ import annotations

import copy
import json
from pathlib import Path

import parity_weights
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from small_detector import CONFIG
from torch import Tensor, nn

from mmmamba.engine.hooks.fine_tune_hook import ClassRows, class_tensors, fine_tune
from mmmamba.errors import InputError

pytestmark = pytest.mark.usefixtures('mmdet_scope')
DATA = Path(__file__).parents[1] / 'data'
OLD, NEW = ('cat', 'dog', 'bird', 'fish'), ('fish', 'horse', 'cat')


def small(classes: int, **head: object) -> ConfigDict:
    config = Config.fromstring(CONFIG, '.py').model
    config.bbox_head.update(num_classes=classes, **head)
    return config


def build(config: ConfigDict) -> nn.Module:
    return MODELS.build(copy.deepcopy(config))


def save(path: Path, model: nn.Module, classes: tuple[str, ...] | None) -> str:
    """Saves a checkpoint, with values that are all different."""
    for index, value in enumerate(model.state_dict().values()):
        if value.is_floating_point():
            value.copy_(torch.arange(value.numel()).view(value.shape) / value.numel() + index)
    meta = {'dataset_meta': {'classes': classes}} if classes else {}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
    return str(path)


def load(tmp_path: Path, old: ConfigDict, new: ConfigDict, named: tuple[str, ...] | None = OLD,
         classes: tuple[str, ...] = NEW) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], list[str]]:
    """The weights of the file, those of the new model before and after, and the lines."""
    torch.manual_seed(0)
    source, model = build(old), build(new)
    path = save(tmp_path / 'trained.pth', source, named)
    before = copy.deepcopy(model.state_dict())
    return source.state_dict(), before, model.state_dict(), fine_tune(model, new, path, classes)


def test_classes_known_by_name_keep_their_rows_and_the_others_start_anew(tmp_path):
    old, before, after, lines = load(tmp_path, small(4), small(3))
    rows = {f'bbox_head.cls_branches.{level}.2.{leaf}' for level in range(3) for leaf in ('weight', 'bias')}
    for name, value in after.items():
        if name not in rows:
            assert torch.equal(value, old[name]), name
            continue
        assert torch.equal(value[0], old[name][3]) and torch.equal(value[2], old[name][0])  # fish, cat
        assert torch.equal(value[1], before[name][1])  # horse
    assert len(lines) == 3 and f'{len(after)} of {len(after)} tensors load' in lines[0]
    assert lines[1] == 'classes: 2 of 3 keep their weights (fish, cat); start anew: horse'


def test_as_many_classes_of_other_names_are_not_the_same(tmp_path):
    old, before, after, lines = load(tmp_path, small(3), small(3), named=('cat', 'dog', 'bird'))
    name = 'bbox_head.cls_branches.0.2.bias'
    assert torch.equal(after[name][2], old[name][0]) and torch.equal(after[name][:2], before[name][:2])
    assert 'classes: 1 of 3 keep' in lines[1]


@pytest.mark.parametrize('number', [3, 4])
def test_classes_without_names_are_taken_in_their_order_if_they_are_as_many(tmp_path, number):
    old, before, after, lines = load(tmp_path, small(number), small(3), named=None)
    name = 'bbox_head.cls_branches.0.2.weight'
    assert torch.equal(after[name], old[name] if number == 3 else before[name])
    assert ('taken to be these' if number == 3 else 'all start anew') in lines[1]


@pytest.mark.parametrize('old_number, new_number', [(40, 3), (3, 40)])
def test_class_branches_are_resized_where_their_width_follows_the_classes(tmp_path, old_number, new_number):
    names = tuple(f'class {number}' for number in range(40))
    old, before, after, lines = load(tmp_path, small(old_number), small(new_number), names[:old_number],
                                     names[:new_number])
    name = 'bbox_head.cls_branches.0.1.conv.weight'
    assert old[name].shape[0] == max(16, old_number) and after[name].shape[0] == max(16, new_number)
    assert torch.equal(after[name][:16, :16], old[name][:16, :16])
    assert torch.equal(after[name][16:], before[name][16:])
    last = 'bbox_head.cls_branches.2.2.weight'
    assert torch.equal(after[last][:3, :16], old[last][:3, :16])
    assert 'resized to the width for this number of classes (bbox_head.cls_branches' in lines[2]
    assert 'left out' not in lines[2] and '3 of ' in lines[1]


def test_weights_of_another_shape_are_left_out_and_named(tmp_path):
    wider = small(3)
    wider.backbone.widths = (16, 16, 16, 32)
    _, before, after, lines = load(tmp_path, wider, small(3))
    name = 'backbone.stem.conv2.conv.weight'
    assert torch.equal(after[name], before[name])
    assert 'left out, of another shape (backbone.' in lines[2]


def test_a_backbones_file_and_more_than_the_model_has(tmp_path):
    backbone = build(small(3)).backbone
    path = save(tmp_path / 'backbone.pth', backbone, None)
    model = build(small(3))
    lines = fine_tune(model, small(3), path, NEW)
    assert torch.equal(model.backbone.stem.conv1.conv.weight, backbone.stem.conv1.conv.weight)
    assert 'start anew, not in the file (neck.' in lines[2]
    path = save(tmp_path / 'more.pth', nn.ModuleDict(dict(backbone=backbone, other=nn.Linear(1, 1))), None)
    assert '2 not used (other.weight, other.bias)' in fine_tune(model, small(3), path, NEW)[2]


def test_weights_of_a_reference_implementation_are_converted(tmp_path):
    shapes = json.loads((DATA / 'yolov8n.shapes.json').read_text())
    weights = {name: torch.from_numpy(value) for name, value in parity_weights.state_dict(shapes).items()}
    torch.save(weights, tmp_path / 'reference.pt')
    config = Config.fromfile(Path(__file__).parents[2] / 'configs/_base_/models/yolov8_n.py').model
    config.bbox_head.num_classes = 2
    model = build(config)
    lines = fine_tune(model, config, str(tmp_path / 'reference.pt'), ('a', 'b'))
    assert 'converted from yolov8' in lines[0] and 'the file does not name its own; all start anew' in lines[1]
    assert torch.equal(model.backbone.stem.conv.weight, weights['model.0.conv.weight'])


def test_nothing_that_fits_is_an_error(tmp_path):
    torch.save({'conv.weight': torch.zeros(3)}, tmp_path / 'other.pth')
    with pytest.raises(InputError, match='none of its 1 weights fits this SingleStageDetector: it has conv.weight'):
        fine_tune(build(small(3)), small(3), str(tmp_path / 'other.pth'), NEW)


@pytest.mark.parametrize('name, layouts', [
    ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco', {
        'roi_head.bbox_head.fc_cls.weight': (1, 1), 'roi_head.bbox_head.fc_reg.bias': (4, 0)}),
    ('retinanet/retinanet_r50_fpn_1x_coco', {'bbox_head.retina_cls.weight': (9, 0)}),
    ('dino/dino-4scale_r50_8xb2-12e_coco', {
        'bbox_head.cls_branches.0.weight': (1, 0), 'dn_query_generator.label_embedding.weight': (1, 0)}),
])
def test_rows_of_classes_in_heads_of_mmdet(name, layouts):
    rows, wide = class_tensors(get_config(f'mmdet::{name}.py').model)
    assert not wide and all('cls' in key or 'reg' in key or 'label' in key for key in rows)
    for key, (each, others) in layouts.items():
        assert (rows[key].rows, rows[key].others) == (each, others)


def test_backgrounds_and_sides_of_boxes_go_with_their_classes(tmp_path):
    """fc_cls has the background last; fc_reg the four sides of a class together; RetinaNet each anchor's classes."""
    rows = {'fc_cls': (5, 4, 1), 'fc_reg': (16, 12, 4), 'retina_cls': (8, 6, 2)}
    expected = {'fc_cls': [3, None, 0, 4], 'fc_reg': [12, 13, 14, 15, *4 * [None], 0, 1, 2, 3],
                'retina_cls': [3, None, 0, 7, None, 4]}
    for name, (old, new, each) in rows.items():
        kind = ClassRows(each, 1 if name == 'fc_cls' else 0)
        merged = kind.merge(name, -torch.ones(new), torch.arange(old).float(), OLD, NEW)
        assert merged.tolist() == [-1 if value is None else value for value in expected[name]], name
