"""One image size for a whole recipe: every place of a config that has a size."""
from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from mmmamba.errors import InputError
from mmmamba.model_config import parts

STRIDE = 32
"""Images that a batch is padded to have sides that are multiples of this."""
_SIZES = ('scale', 'scales', 'img_scale', 'img_scales', 'image_size', 'size', 'crop_size', 'border', 'tta_scales',
          'random_size_range')
"""Keys of transforms, of top-level variables and of augmentation on batches: a size, or a list of them."""
_CANVASES = ('Mosaic', 'MosaicWithMasks', 'CachedMosaic', 'Pad', 'LetterboxPad')
"""Transforms that make images of exactly a size."""


def with_image_size(cfg: Config, width: int, height: int) -> Config:
    """Returns a config for images of another size; whatever has a size in its pipelines changes in proportion.

    These are resizing (with several scales too), padding, mosaic and mixing, crops, borders of affine transforms,
    test-time augmentation, and in the model's preprocessor padding to one size and augmentation on batches. Sizes
    other than the test images' (those of test-time augmentation, say) are rounded to multiples of 32.

    Args:
        cfg: With test images that are resized; not changed.
        width: Of the test images, in pixels. As in the config, images keep their shape: they fit into the size.
        height: Likewise.

    Raises:
        InputError: Test images are not resized, or the model takes images of a fixed size; or the recipe pads to the
            size and it is no multiple of 32.
    """
    if width < 1 or height < 1:
        raise InputError(f'an image size must be positive, got {width} x {height}')
    old_width, old_height = image_size(cfg)
    if any('input_size' in part for part in parts(cfg.get('model'))):
        raise InputError('the model takes images of a fixed size (its input_size): the image size is not set by name')
    cfg = copy.deepcopy(cfg)
    cfg_dict: ConfigDict = cfg._cfg_dict
    if (width % STRIDE or height % STRIDE) and any(
            step.get('type') in _CANVASES and ('size' in step or 'img_scale' in step) for step in parts(cfg_dict)):
        raise InputError(f'the sides of the images must be multiples of {STRIDE}, since this recipe pads to them; got '
                         f'{width} x {height}')

    def scaled(size: Sequence[int]) -> tuple[int, int]:
        upright = size[0] < size[1] and old_width > old_height  # (height, width), which resizing takes as well
        new, old = ((height, width), (old_height, old_width)) if upright else (
            (width, height), (old_width, old_height))
        first, second = (_in_proportion(side, *sides) for side, sides in zip(size, zip(new, old)))
        return first, second

    preprocessor = cfg_dict.get('model', {}).get('data_preprocessor') or ConfigDict()
    for place, key in [*_sized_places(cfg_dict, cfg_dict.get('model')), *_sized_places(preprocessor)]:
        value = place[key]
        if place.get('crop_type') == 'absolute_range' and value[0] == value[1] and width != height:
            place.update(crop_type='absolute', crop_size=scaled(value))
        elif key == 'random_size_range' or place.get('crop_type') == 'absolute_range':  # from … to
            place[key] = tuple(_in_proportion(side, min(width, height), min(old_width, old_height)) for side in value)
        elif isinstance(value, int):
            place[key] = scaled((value, value)) if width != height else scaled((value, value))[0]
        elif isinstance(value[0], int):
            place[key] = scaled(value)
        else:
            place[key] = [scaled(size) for size in value]
    if preprocessor.get('pad_size_divisor', 1) > STRIDE:  # it pads to squares of that size
        preprocessor.pad_size_divisor = max(width, height)
    return cfg


def image_size(cfg: Config) -> tuple[int, int]:
    """Returns width and height that a config's test images are resized to.

    Raises:
        InputError: They are not resized.
    """
    for step in parts(cfg.get('test_dataloader')):
        if str(step.get('type')).split('.')[-1] == 'Resize' and 'scale' in step:
            scale = step['scale']
            return (scale, scale) if isinstance(scale, int) else (scale[0], scale[1])
    raise InputError('the test pipeline has no Resize with a scale, so that the image size cannot be set by name')


def _sized_places(config: ConfigDict, without: ConfigDict | None = None) -> Iterator[tuple[dict, str]]:
    """Yields every dict with a size in it, once, and the key of the size; but for those in ``without``."""
    seen = {id(part) for part in parts(without)}
    for part in parts(config):
        if id(part) in seen:  # two loaders may share a pipeline
            continue
        seen.add(id(part))
        for key in _SIZES:
            if key in part and _is_size(part[key]):
                yield part, key


def _is_size(value: Any) -> bool:
    if isinstance(value, int):
        return value > 1
    if not isinstance(value, (list, tuple)) or not value:
        return False
    pairs = [value] if not isinstance(value[0], (list, tuple)) else value
    # Crops by ratio are of floats.
    return all(len(pair) == 2 and all(isinstance(side, int) and abs(side) > 1 for side in pair) for pair in pairs)


def _in_proportion(side: int, new: int, old: int) -> int:
    """Scales a side; the old size, its half and its multiples become exactly those of the new one."""
    if new == old:
        return side
    exact = side * new / old
    if exact == int(exact) and (side % old == 0 or old % side == 0):
        return int(exact)
    return max(STRIDE, STRIDE * round(exact / STRIDE)) if side > 0 else round(exact)
