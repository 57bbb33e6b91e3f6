"""Findings about the objects of one split, and counts of them."""
from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmmamba.analysis.data_check.findings import KINDS, Finding, listed, shown
from mmmamba.datasets.coco_objects import find_mask_fault, find_reason, find_reason_to_miss

LEAST_SIDE = 2.0  # pixels at the training size; CenteredRandomAffine drops what is not above
MOST_BEYOND = 2.0  # pixels that a box may reach over the border, by rounding or by counting from 1
SAME_BOX = 0.95  # IoU
WHOLE = 0.95  # share of the image's area
ELONGATED = 20.0
SMALL, MEDIUM = 32**2, 96**2  # pixels, COCO's
SIDE_BINS = (8, 16, 32, 64, 128, 256)  # pixels
RATIO_BINS = (0.2, 0.5, 0.8, 1.25, 2, 5)
CROWDING_BINS = {0: '0', 1: '1', 2: '2 – 3', 4: '4 – 7', 8: '8 – 15', 16: '16 – 31', 32: '≥ 32'}


def find_in_objects(split: str, content: dict, image_size: tuple[int, int]) -> Iterator[Finding]:
    """Yields what is doubtful about the objects of a split.

    Args:
        split: Its name.
        content: Of its annotation file: sound entries.
        image_size: Width and height in pixels that training scales images into.
    """
    names = {category['id']: category['name'] for category in content['categories']}
    objects = by_image(content)
    learns_masks = any(item.get('segmentation') for item in content['annotations'])
    for image in content['images']:
        usable = []
        for item in objects[image['id']]:
            if item.get('iscrowd'):
                continue
            fault = _box_fault(item, image, split)
            if fault:
                yield _about(fault[0], split, image, [item], f'{names[item["category_id"]]} {fault[1]}')
            if fault is None or fault[0] == 'beyond':
                usable.append(item)
                yield from _doubts(item, image, split, names[item['category_id']], image_size)
            if item.get('ignore'):
                yield _about('ignored', split, image, [item], f'{names[item["category_id"]]} is marked as ignored')
            mask = find_mask_fault(item.get('segmentation'), image, (list, dict)) if learns_masks else None
            if mask:
                yield _about('mask', split, image, [item], f'{names[item["category_id"]]} {mask}')
        yield from _same_boxes(usable, image, split, names)


def find_in_classes(counts: Mapping[str, Mapping[str, int]], classes: Sequence[str]) -> Iterator[Finding]:
    """Yields classes without objects, and rare ones of the training split.

    Args:
        counts: Split → class → objects.
        classes: All.
    """
    for split, numbers in counts.items():
        most = max(numbers.values(), default=0)
        for name in classes:
            count = numbers.get(name, 0)
            if most and not count:
                yield Finding('no_class', KINDS['no_class'].severity, split, f'{shown(name)} has no object in {split}')
            elif split == 'train' and 20 * count < most:
                yield Finding('imbalance', KINDS['imbalance'].severity, split,
                              f'{shown(name)} has {count} object{"s" * (count > 1)}, the most frequent class {most}: '
                              f'1 to {most / count:.0f}')


def by_image(content: dict) -> Mapping[object, list[dict]]:
    """Returns image id → its annotations; an image without any has an empty list."""
    found: dict[object, list[dict]] = defaultdict(list)
    for item in content['annotations']:
        found[item['image_id']].append(item)
    return found


def count_objects(content: dict, classes: Sequence[str],
                  image_size: tuple[int, int]) -> dict[str, Mapping[str, int]]:
    """Counts the objects of a split, without crowds, as the fields of ``SplitSummary`` that are histograms."""
    images = {image['id']: image for image in content['images']}
    names = {category['id']: category['name'] for category in content['categories']}
    objects = [item for item in content['annotations'] if not item.get('iscrowd')]
    per_class = Counter(names[item['category_id']] for item in objects)
    per_image = Counter(item['image_id'] for item in objects)
    sides, ratios = [], []
    for item in objects:
        _, _, width, height = item['bbox']
        if min(width, height) > 0:
            sides.append(_scale(images[item['image_id']], image_size) * (width * height)**0.5)
            ratios.append(width / height)
    sizes = Counter('small' if item['area'] < SMALL else 'medium' if item['area'] < MEDIUM else 'large'
                    for item in objects)
    crowding = Counter(max(low for low in CROWDING_BINS if low <= per_image[key]) for key in images)
    shapes = Counter(f'{image["width"]:g} x {image["height"]:g}' for image in content['images'])
    return {
        'classes': {name: per_class[name] for name in classes},
        'sizes': {name: sizes[name] for name in ('small', 'medium', 'large')},
        'scaled_sides': _histogram(sides, SIDE_BINS),
        'aspect_ratios': _histogram(ratios, RATIO_BINS),
        'crowding': {CROWDING_BINS[low]: crowding[low] for low in CROWDING_BINS},
        'image_sizes': dict(shapes.most_common())}


def _histogram(values: Sequence[float], edges: Sequence[float]) -> dict[str, int]:
    """Counts values between edges, the lower of which belongs to a bin."""
    labels = [f'< {edges[0]:g}', *(f'{low:g} – {high:g}' for low, high in zip(edges, edges[1:])), f'≥ {edges[-1]:g}']
    numbers = np.bincount(np.searchsorted(edges, np.asarray(values, float), side='right'), minlength=len(labels))
    return dict(zip(labels, numbers.tolist()))


def _scale(image: dict, image_size: tuple[int, int]) -> float:
    """Returns the factor by which mmdet's Resize makes an image fit: long side to long side, short to short."""
    sides = image['width'], image['height']
    return min(max(image_size) / max(sides), min(image_size) / min(sides))


def _about(kind: str, split: str, image: dict, items: Sequence[dict], sentence: str) -> Finding:
    which = f'annotation{"s" * (len(items) > 1)} {listed([item["id"] for item in items])}'
    return Finding(kind, KINDS[kind].severity, split, f'{shown(image["file_name"])}: {which}: {shown(sentence)}',
                   image['file_name'], tuple(item['id'] for item in items))


def _box_fault(item: dict, image: dict, split: str) -> tuple[str, str] | None:
    """Returns the kind of what is wrong with a box, and a sentence without its subject; None if it is inside."""
    x, y, width, height = item['bbox']
    reason = find_reason(item, image) if split == 'train' else find_reason_to_miss(item, image)
    where = f'{width:g} x {height:g} at ({x:g}, {y:g}), image {image["width"]:g} x {image["height"]:g}'
    if reason and reason != 'marked as ignored':
        effect = 'training leaves it out' if split == 'train' else 'it counts as missed'
        return 'outside' if reason == 'outside the image' else 'no_area', f'is {reason}: {effect} ({where})'
    beyond = max(-x, -y, x + width - image['width'], y + height - image['height'])
    return ('beyond', f'reaches {beyond:.0f} pixels beyond the border ({where})') if beyond > MOST_BEYOND else None


def _doubts(item: dict, image: dict, split: str, name: str,
            image_size: tuple[int, int]) -> Iterator[Finding]:
    _, _, width, height = item['bbox']
    scale = _scale(image, image_size)
    if min(width, height) * scale < LEAST_SIDE:
        yield _about('tiny', split, image, [item], f'{name} of {width:g} x {height:g} pixels has '
                     f'{width * scale:.1f} x {height * scale:.1f} at {image_size[0]} x {image_size[1]}')
    elif max(width, height) > ELONGATED * min(width, height):
        yield _about('elongated_box', split, image, [item], f'{name} is {width:g} x {height:g}')
    if width * height >= WHOLE * image['width'] * image['height']:
        yield _about('whole_image', split, image, [item], f'{name} of {width:g} x {height:g} in an image of '
                     f'{image["width"]:g} x {image["height"]:g}')


def _same_boxes(items: Sequence[dict], image: dict, split: str, names: Mapping) -> Iterator[Finding]:
    """Yields pairs of boxes at one place."""
    if len(items) < 2:
        return
    boxes = np.array([item['bbox'] for item in items], float)
    low, high = boxes[:, None, :2], boxes[:, None, :2] + boxes[:, None, 2:]
    common = np.clip(np.minimum(high, high[:, 0]) - np.maximum(low, low[:, 0]), 0, None).prod(axis=-1)
    areas = boxes[:, 2:].prod(axis=1)
    iou = common / (areas[:, None] + areas - common)
    for first, second in np.argwhere(np.triu(iou > SAME_BOX, 1)):
        pair = [items[first], items[second]]
        classes = [names[item['category_id']] for item in pair]
        if classes[0] == classes[1]:
            kind, sentence = 'duplicate_box', f'{classes[0]} twice at one place'
        else:
            kind, sentence = 'two_classes', f'{classes[0]} and {classes[1]} at one place'
        yield _about(kind, split, image, pair, f'{sentence} (IoU {iou[first, second]:.2f})')
