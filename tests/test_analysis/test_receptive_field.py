"""Effective receptive fields against those that are known, and the tool that draws them."""
from __future__ import annotations

import csv
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from small_detector import CONFIG
from torch import nn

from mmmamba.analysis import build_detector
from mmmamba.analysis.receptive_field import ReceptiveField, draw, receptive_field, stage_features
from mmmamba.errors import InputError

TOOL = Path(__file__).parents[2] / 'tools/analysis_tools/receptive_field.py'
NORMALISING = f"""{CONFIG}
model.update(data_preprocessor=dict(type='DetDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=True))
"""

pytestmark = pytest.mark.usefixtures('mmdet_scope')


def with_positive_weights(layer: nn.Conv2d) -> nn.Conv2d:
    """Of positive images it makes positive maps, of which the ReLU before the gradient takes nothing."""
    nn.init.uniform_(layer.weight, 0.1, 1)
    nn.init.zeros_(layer.bias)
    return layer


@pytest.mark.parametrize('layers', [1, 3, 6])
def test_a_stack_of_3x3_convolutions_sees_2k_plus_1_pixels(layers):
    torch.manual_seed(0)
    stack = nn.Sequential(*(with_positive_weights(nn.Conv2d(2, 2, 3, padding=1)) for _ in range(layers)))
    field = receptive_field(stack, [torch.rand(1, 2, 31, 40)])
    assert field.side(1.0) == 2 * layers + 1 and field.stride == 1 and field.centre == (15.5, 20.5)
    rows, columns = np.nonzero(field.strength)
    assert (rows.min(), rows.max()) == (15 - layers, 15 + layers)
    assert (columns.min(), columns.max()) == (20 - layers, 20 + layers)


@pytest.mark.parametrize('patch', [2, 4])
def test_a_cell_of_a_patch_embedding_sees_its_patch(patch):
    embedding = with_positive_weights(nn.Conv2d(3, 5, patch, stride=patch))
    field = receptive_field(embedding, [torch.rand(1, 3, 8 * patch, 8 * patch)])
    assert field.side(1.0) == field.stride == patch
    assert field.centre == (4.5 * patch, 4.5 * patch)


def test_the_strength_is_the_mean_absolute_gradient_over_images():
    weight = torch.tensor([[1., 2.], [-3., -0.5], [2., -1.]])

    def features(image):  # three maps of weighted squares, of three cells each: of positive, negative, either sign
        return torch.stack([torch.einsum('c,bchw->bhw', row, image.square()) for row in weight], dim=1)

    torch.manual_seed(0)
    images = [torch.randn(1, 2, 1, 3) for _ in range(8)]
    field = receptive_field(features, images)
    cells = [image[0, :, 0, 1] for image in images]
    positive = [weight[(weight @ cell.square()) > 0].sum(0) for cell in cells]
    expected = torch.stack([(2 * cell * weights).abs().sum() for cell, weights in zip(cells, positive)]).mean()
    assert field.strength[0] == pytest.approx([0, expected.item(), 0])
    assert len({tuple(weights.tolist()) for weights in positive}) == 2


def test_sides_hold_their_shares():
    strength = np.zeros((9, 9))
    strength[4, 4], strength[4, 5], strength[1, 4], strength[8, 8] = 5, 3, 1, 1
    field = ReceptiveField(strength, (4.5, 4.5), 1)
    assert [field.side(share) for share in (0.2, 0.5, 0.51, 0.8, 0.81, 0.9, 0.91, 1.0)] == [1, 1, 3, 3, 7, 7, 9, 9]


def corners(backbone: dict, side: int = 64) -> np.ndarray:
    """Strengths at the four corners of the image, of the middle cell of C2."""
    torch.manual_seed(0)
    model = MODELS.build(dict(type='ODMamba', arch='t', depths=(1, 1, 1, 1), out_indices=(0, ), **backbone)).eval()
    field = receptive_field(lambda image: model(image)[0], [torch.rand(1, 3, side, side)])
    return field.strength[[0, 0, -1, -1], [0, -1, 0, -1]]


def test_scans_reach_the_corners_and_convolutions_do_not():
    assert (corners(dict(ssm_init='mamba')) > 0).all()
    assert (corners(dict(num_ss2d=0)) == 0).all()


def test_the_field_of_a_map_behind_a_layer_norm_is_no_rounding():
    torch.manual_seed(0)
    backbone = dict(type='EfficientVMamba', arch=None, widths=(16, 32, 64, 128), depths=(1, 1, 1, 1))
    model, image = MODELS.build(backbone).eval(), torch.rand(1, 3, 64, 64)
    single = receptive_field(lambda image: model(image)[-1], [image]).strength
    model.double()
    exact = receptive_field(lambda image: model(image)[-1], [image.double()]).strength
    assert single.max() == pytest.approx(exact.max(), rel=1e-3) and exact.max() > 1e-3


def test_what_has_no_field_says_so():
    with pytest.raises(InputError, match='there is no image'):
        receptive_field(nn.Identity(), [])
    with pytest.raises(InputError, match='zero or not finite'):
        receptive_field(lambda image: image * 0, [torch.ones(1, 1, 4, 4)])
    with pytest.raises(InputError, match='zero or not finite'):
        receptive_field(lambda image: image * float('nan'), [torch.ones(1, 1, 4, 4)])


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'small.py'
    path.write_text(NORMALISING)
    return path


def test_stages_are_maps_of_the_backbone_or_modules(config):
    detector = MODELS.build(Config.fromfile(config).model).eval()
    image = torch.rand(1, 3, 64, 96)
    maps, fused = detector.backbone(image), detector.extract_feat(image)
    for stage, expected in (('0', maps[0]), ('2', maps[2]), ('-1', maps[2]), ('backbone.sppf', maps[2]),
                            ('backbone.stages.1', maps[0]), ('neck.bottom_up_blocks.1', fused[2])):
        torch.testing.assert_close(stage_features(detector, stage)(image), expected)
    with pytest.raises(InputError, match='neck makes no map'):  # but three
        stage_features(detector, 'neck')(image)
    with pytest.raises(InputError, match='returns 3 maps, there is no stage 3'):
        stage_features(detector, '3')(image)
    with pytest.raises(InputError, match="'backbone.nothing' is neither"):
        stage_features(detector, 'backbone.nothing')
    with pytest.raises(InputError, match='bbox_head makes no map'):
        stage_features(detector, 'bbox_head')(image)


def test_the_picture_has_a_panel_for_each_field(tmp_path):
    field = receptive_field(with_positive_weights(nn.Conv2d(1, 1, 5, padding=2)), [torch.rand(1, 1, 16, 16)])
    for number in (1, 2):
        draw([(f'field {i}', field) for i in range(number)], tmp_path / f'{number}.png')
    widths = [cv2.imread(str(tmp_path / f'{number}.png')).shape[1] for number in (1, 2)]
    assert widths[1] > 1.5 * widths[0]


@pytest.fixture
def tool(run_script):
    return partial(run_script, TOOL)


def test_the_tool_compares_weights(tool, config, tmp_path, shared_coco_folder, capsys):
    torch.manual_seed(1)
    model = MODELS.build(Config.fromfile(config).model)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'trained.pth')
    out, table = tmp_path / 'field.png', tmp_path / 'field.csv'
    images = ['--images', shared_coco_folder / 'val', '--num-images', 2, '--size', 64]
    models = [config, f'{config}={tmp_path / "trained.pth"}']
    assert tool(*models, *images, '--stage', 0, '--out', out, '--csv', table) == 0
    printed = capsys.readouterr().out
    assert 'small, stage 0, untrained, stride 8' in printed and 'small, stage 0, trained.pth, stride 8' in printed
    assert cv2.imread(str(out)) is not None
    with table.open(encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert [row['model'] for row in rows] == list(map(str, models))
    assert all(row['images'] == '2' and 0 < int(row['side_20']) <= int(row['side_99']) for row in rows)
    assert rows[0]['side_50'] in next(line for line in printed.splitlines() if 'untrained' in line).split()
    (tmp_path / 'other').mkdir()
    shutil.copy(tmp_path / 'trained.pth', tmp_path / 'other/trained.pth')
    assert tool(*models, f'{config}={tmp_path / "other/trained.pth"}', *images, '--out', out) == 0
    printed = capsys.readouterr().out
    assert f', {tmp_path.name}/trained.pth, ' in printed
    shutil.copy(config, tmp_path / 'other' / Path(config).name)
    assert tool(config, tmp_path / 'other' / Path(config).name, *images, '--out', out) == 0
    both = capsys.readouterr().out
    assert f'{tmp_path.name}/small.py, stage' in both and 'other/small.py, stage' in both
    assert ', other/trained.pth, ' in printed and ', untrained, ' in printed


@pytest.mark.parametrize('arguments, message', [
    (['--size', 100], '--size must be a positive multiple of 32'),
    (['--num-images', 0], '--num-images must be positive'),
    (['--device', 'nonsense'], '--device nonsense: must be cpu, cuda or cuda:N'),
    (['--device', 'cuda:99'], '--device cuda:99: '),
    (['--out', 'field.txt'], '--out field.txt: its name must end as a picture'),
    (['--out', 'field'], '--out field: its name must end as a picture'),
    (['--images', __file__], f'{__file__} is no image'),
    (['--out', '/nowhere/field.png'], '/nowhere/field.png: there is no folder'),
    (['--images', '/nowhere'], '/nowhere: no such file or folder'),
    (['--size', 64, '--stage', 7], 'the backbone returns 3 maps, there is no stage 7'),
])
def test_errors_are_one_line(tool, config, shared_coco_folder, capsys, arguments, message):
    assert tool(config, '--images', shared_coco_folder / 'val', *arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f'error: {message}')


def test_a_config_without_a_preprocessor_is_refused(tool, tmp_path, shared_coco_folder, capsys):
    path = tmp_path / 'raw.py'
    path.write_text(CONFIG)
    assert tool(path, '--images', shared_coco_folder / 'val', '--out', tmp_path / 'field.png') == 2
    assert 'no data_preprocessor' in capsys.readouterr().err


def test_untrained_weights_are_those_that_training_starts_from(config):
    model = Config.fromfile(config).model
    path = config.with_name('constant.py')
    model.backbone.init_cfg = [dict(type='Constant', layer='Conv2d', val=0.5),
                               dict(type='Pretrained', checkpoint='absent.pth')]
    path.write_text(f"custom_imports = dict(imports=['mmmamba'])\nmodel = {model.to_dict()}\n")
    detector = build_detector(str(path))
    assert {weight.item() for layer in detector.backbone.modules() if isinstance(layer, nn.Conv2d)
            for weight in layer.weight.unique()} == {0.5}


def test_weights_of_another_model_are_refused(tool, config, tmp_path, shared_coco_folder, capsys):
    torch.save(dict(state_dict={'weight': torch.zeros(1)}), tmp_path / 'other.pth')
    assert tool(f'{config}={tmp_path / "other.pth"}', '--images', shared_coco_folder / 'val', '--size', 64) == 2
    assert 'does not fit this SingleStageDetector' in capsys.readouterr().err
    assert tool(f'{config}={tmp_path / "absent.pth"}', '--images', shared_coco_folder / 'val', '--size', 64) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith('error: ')
