"""Augmentation against its definition, pixel by pixel and box by box."""
import colorsys

import numpy as np
import pytest
import torch
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes

from mmmamba.datasets import CenteredRandomAffine, RandomHSV
from mmmamba.errors import InputError
from mmmamba.seeding import seed_everything


def sample(boxes, height=48, width=64):
    image = np.full((height, width, 3), 30, np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = 220
    return dict(img=image, img_shape=image.shape[:2], gt_bboxes=HorizontalBoxes(np.float32(boxes).reshape(-1, 4)),
                gt_bboxes_labels=np.arange(len(boxes)), gt_ignore_flags=np.zeros(len(boxes), bool))


def test_hsv_multiplies_each_channel(monkeypatch):
    gains = np.array([0.99, 1.5, 0.8])
    transform = RandomHSV()
    monkeypatch.setattr(transform, '_gains', lambda: gains)
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    result = transform(dict(img=image.copy()))['img']
    assert result.dtype == np.uint8 and result.shape == image.shape
    errors = []
    for before, after in zip(image.reshape(-1, 3) / 255, result.reshape(-1, 3) / 255):
        hue, saturation, value = colorsys.rgb_to_hsv(*before[::-1])
        expected = colorsys.hsv_to_rgb(hue * gains[0], min(saturation * gains[1], 1), value * gains[2])
        errors.append(np.abs(np.array(expected[::-1]) - after).max())
    # Eight bits, and two degrees of hue a step: a few levels of the 255.
    assert np.mean(errors) < 4 / 255 and max(errors) < 15 / 255


def test_hsv_leaves_grey_grey_and_black_black():
    seed_everything(0)
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    for _ in range(5):
        result = RandomHSV().transform(dict(img=grey.copy()))['img']
        assert (result == result[..., :1]).all()
        assert (result[0] == 0).all()


def test_hsv_gains_cover_their_ranges():
    seed_everything(0)
    transform = RandomHSV(hue=0.015, saturation=0.7, value=0.4)
    gains = np.stack([transform._gains() for _ in range(2000)])
    np.testing.assert_allclose(gains.min(0), [0.985, 0.3, 0.6], atol=5e-3)
    np.testing.assert_allclose(gains.max(0), [1.015, 1.7, 1.4], atol=5e-3)


def test_hsv_refuses_what_it_cannot_do():
    with pytest.raises(InputError, match='between 0 and 1'):
        RandomHSV(saturation=1.5)
    with pytest.raises(InputError, match='uint8'):
        RandomHSV().transform(dict(img=np.zeros((2, 2, 3), np.float32)))


@pytest.mark.parametrize('scale', [0.5, 1.0, 1.5])
def test_affine_scales_about_the_centre(scale):
    transform = CenteredRandomAffine(max_translate_ratio=0.0, scaling_ratio_range=(scale, scale))
    results = transform(sample([(24, 20, 40, 28)]))
    box = results['gt_bboxes'].tensor[0]
    expected = torch.tensor([32 - 8 * scale, 24 - 4 * scale, 32 + 8 * scale, 24 + 4 * scale])
    torch.testing.assert_close(box, expected)
    ys, xs = np.nonzero(results['img'][..., 0] > 150)
    assert abs(xs.mean() - 32) < 1 and abs(ys.mean() - 24) < 1
    assert abs(len(xs) - 128 * scale ** 2) < 0.3 * 128 * scale ** 2


def test_affine_cuts_the_middle_out_of_a_mosaic():
    transform = CenteredRandomAffine(max_translate_ratio=0.0, scaling_ratio_range=(1.0, 1.0), border=(-16, -12))
    original = sample([(24, 20, 40, 28)])
    image = original['img'].copy()
    results = transform(original)
    assert results['img_shape'] == (24, 32)
    np.testing.assert_array_equal(results['img'], image[12:36, 16:48])
    torch.testing.assert_close(results['gt_bboxes'].tensor[0], torch.tensor([8.0, 8.0, 24.0, 16.0]))


def test_affine_boxes_follow_their_pixels():
    seed_everything(3)
    transform = CenteredRandomAffine()
    for _ in range(20):
        results = transform(sample([(20, 16, 44, 32)]))
        bright = np.argwhere(results['img'][..., 0] > 180)
        for box in results['gt_bboxes'].tensor.numpy():
            np.testing.assert_allclose(box[:2], bright.min(0)[::-1], atol=1.6)
            np.testing.assert_allclose(box[2:], bright.max(0)[::-1] + 1, atol=1.6)


def test_affine_drops_slivers_and_keeps_the_rest_inside():
    transform = CenteredRandomAffine(max_translate_ratio=0.0, scaling_ratio_range=(1.0, 1.0), border=(-16, -12))
    boxes = [(24, 20, 40, 28),   # inside
             (0, 0, 17, 48),     # one column of seventeen left
             (0, 0, 32, 48),     # a quarter left
             (0, 0, 10, 10),     # outside
             (40, 20, 42, 30)]   # two pixels wide
    results = transform(sample(boxes))
    assert results['gt_bboxes_labels'].tolist() == [0, 2]
    assert len(results['gt_ignore_flags']) == 2
    tensor = results['gt_bboxes'].tensor
    assert (tensor >= 0).all() and (tensor <= torch.tensor([32, 24, 32, 24])).all()


def test_mmdets_affine_leaves_slivers():
    """Why there is a transform of our own."""
    transform = TRANSFORMS.build(dict(type='RandomAffine', max_rotate_degree=0.0, max_shear_degree=0.0,
                                      max_translate_ratio=0.0, scaling_ratio_range=(2.0, 2.0)))
    assert transform(sample([(31, 0, 60, 40)]))['gt_bboxes'].tensor[0].tolist() == [62, 0, 64, 48]


def test_affine_of_no_boxes():
    results = CenteredRandomAffine()(sample([]))
    assert results['gt_bboxes'].tensor.shape == (0, 4)
    assert results['gt_bboxes_labels'].shape == (0,)


def test_letterbox_of_mmdets_resize_and_pad():
    results = sample([(8, 8, 40, 40)], height=48, width=80)
    for cfg in (dict(type='Resize', scale=(64, 64), keep_ratio=True),
                dict(type='Pad', size=(64, 64), pad_val=dict(img=(114, 114, 114)))):
        results = TRANSFORMS.build(cfg)(results)
    assert results['img'].shape == (64, 64, 3)
    assert results['img_shape'] == (64, 64)
    assert (results['img'][39:] == 114).all() and not (results['img'][37] == 114).all()
    assert results['scale_factor'] == pytest.approx((0.8, 38 / 48))
    torch.testing.assert_close(results['gt_bboxes'].tensor[0], torch.tensor([6.4, 6.3333, 32.0, 31.6667]), rtol=1e-4,
                               atol=1e-4)


def test_representations_name_every_argument():
    assert repr(RandomHSV(0.1, 0.2, 0.3)) == 'RandomHSV(hue=0.1, saturation=0.2, value=0.3)'
    assert repr(CenteredRandomAffine()).endswith('min_box_side=2.0, min_area_ratio=0.1)')
