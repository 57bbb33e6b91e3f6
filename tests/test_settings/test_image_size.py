"""One image size reaches every place of a recipe that has one."""
from __future__ import annotations

import pytest
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.config import Config, ConfigDict
from recipes_of_configs import ONE_OF_EACH, read

from mmmamba.datasets.formats import coco_datasets
from mmmamba.errors import InputError
from mmmamba.model_config import parts
from mmmamba.settings import image_size, with_data_root, with_image_size, with_metainfo

pytestmark = pytest.mark.usefixtures('mmdet_scope')


def steps(cfg: Config, kind: str) -> list[ConfigDict]:
    return [part for part in parts(cfg._cfg_dict) if part.get('type') == kind]


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_every_recipe_takes_another_size_and_the_old_one_changes_nothing(name):
    cfg = read(name)
    assert with_image_size(cfg, *image_size(cfg)).to_dict() == cfg.to_dict()
    before = cfg.to_dict()
    other = with_image_size(cfg, 416, 256)
    assert cfg.to_dict() == before
    assert image_size(other) == (416, 256)
    transforms = [part for loader in ('train_dataloader', 'val_dataloader')
                  for part in parts(other[loader]) if part.get('type') in TRANSFORMS.module_dict]
    assert transforms and all(TRANSFORMS.build(dict(step)) for step in transforms if 'transforms' not in step)


def test_places_of_a_yolo_recipe():
    cfg = with_image_size(read('mamba_yolo/mamba-yolo_t_8xb64-300e_coco'), 416, 320)
    assert {tuple(step.img_scale) for step in steps(cfg, 'Mosaic')} == {(416, 320)}
    assert {tuple(step.size) for kind in ('Pad', 'LetterboxPad') for step in steps(cfg, kind) if 'size' in step} == {
        (416, 320)}
    assert {tuple(step.border) for step in steps(cfg, 'CenteredRandomAffine') if 'border' in step} == {(-208, -160)}
    assert {tuple(step.scale) for step in steps(cfg, 'Resize')} == {(416, 320), (320, 256), (512, 384)}  # with TTA's


def test_places_of_other_recipes():
    cfg = with_image_size(read('yolox/yolox_s_8xb8-300e_coco'), 320, 320)
    assert cfg.model.data_preprocessor.batch_augments[0].random_size_range == (256, 384)
    assert {tuple(step.img_scale) for step in steps(cfg, 'MixUp')} == {(320, 320)}
    cfg = with_image_size(read('vim/cascade-mask-rcnn_vim-ti_simple-pyramid_8xb8-lsj-100e_coco'), 640, 480)
    assert cfg.model.data_preprocessor.pad_size_divisor == 640
    crops = steps(cfg, 'RandomCrop')
    assert crops and {(step.crop_type, tuple(step.crop_size)) for step in crops} == {('absolute', (640, 480))}
    cfg = with_image_size(read('dino/dino-4scale_r50_8xb2-12e_coco'), 1344, 800)
    scales = steps(cfg, 'RandomChoiceResize')[0].scales
    assert all(long == 1344 and short <= 800 for short, long in scales) and scales[-1] == (800, 1344)


@pytest.mark.parametrize('name', ['mamba_yolo/mamba-yolo_t_1xb16-30e_bccd',
                                  'od_mamba/fcos_od-mamba-t_fpn_gn-head_1x_coco'])
def test_images_fit_into_the_size(name, shared_coco_folder):
    cfg = with_image_size(read(name), 128, 64)
    cfg = with_metainfo(with_data_root(cfg, str(shared_coco_folder)), dict(classes=('square', 'wide', 'tall')))
    for loader, split in (('train_dataloader', 'train'), ('val_dataloader', 'val')):
        dataset = cfg[loader].dataset
        for one in coco_datasets(dataset):
            one.update(ann_file=f'annotations/{split}.json', data_prefix=dict(img=f'{split}/'))
        _, height, width = DATASETS.build(dataset)[0]['inputs'].shape
        # Mosaics and letterboxes are of that size; other recipes keep an image of 64 x 48 in shape.
        assert (width, height) == ((128, 64) if 'mamba-yolo' in name else (85, 64))


def test_what_cannot_have_another_size_is_one_line():
    yolo = read('mamba_yolo/mamba-yolo_t_8xb64-300e_coco')
    with pytest.raises(InputError, match='multiples of 32, since this recipe pads to them; got 400 x 300'):
        with_image_size(yolo, 400, 300)
    assert image_size(with_image_size(read('dino/dino-4scale_r50_8xb2-12e_coco'), 400, 300)) == (400, 300)
    with pytest.raises(InputError, match='positive'):
        with_image_size(yolo, 0, 32)
    with pytest.raises(InputError, match='no Resize'):
        with_image_size(Config(dict(model=dict(type='A'))), 64, 64)
    ssd = Config(dict(yolo.to_dict(), model=dict(type='SSD', backbone=dict(input_size=300))))
    with pytest.raises(InputError, match='fixed size'):
        with_image_size(ssd, 64, 64)
