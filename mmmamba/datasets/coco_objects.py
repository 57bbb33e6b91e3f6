"""Which objects of a COCO file a detector learns from, and which ones it is asked for in evaluation."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from mmmamba.datasets.coco_checks import is_number
from mmmamba.errors import InputError, first_names

_CROWD = 'crowds'


def check_objects(content: dict, classes: Sequence[str], path: str, for_evaluation: bool,
                  mask_forms: Collection[type] = ()) -> str:
    """Checks that something is left to learn or to detect, once mmdet or COCO's evaluation has left out what it does.

    Training does without objects of other categories, ignored ones and boxes that it cannot use; crowds, and objects
    whose mask cannot be read, are marked as ignored, which most detectors take as background. Evaluation asks for
    every object of the classes that is no crowd, ignored or not, and counts as missed those that no detection can
    match.

    Args:
        content: What ``read_annotations`` returned. In training, segmentations that cannot be read are replaced by one
            that mmdet takes as unknown.
        classes: The configured class names.
        path: The file, for messages.
        for_evaluation: As in ``read_annotations``.
        mask_forms: The forms of segmentations that will be read: ``list`` for polygons, ``dict`` for RLE; none where
            boxes alone will be.

    Returns:
        A remark on what is left out, and in evaluation on what counts although nothing can match it or it is marked
            as ignored; or an empty string.

    Raises:
        InputError: There is nothing to learn or to detect, or evaluation would go wrong.
    """
    images = {image['id']: image for image in content['images']}
    names = {category['id']: category['name'] for category in content['categories']}
    left_out: dict[str, list] = defaultdict(list)
    missed: dict[str, list] = defaultdict(list)
    asked_all_the_same = []
    for annotation in content['annotations']:
        image, name = images[annotation['image_id']], names[annotation['category_id']]
        if name not in classes:
            left_out[f'of the unconfigured category {name!r}'].append(annotation['id'])
            continue
        mask_fault = find_mask_fault(annotation.get('segmentation'), image, mask_forms) if mask_forms else None
        if for_evaluation:
            fault = mask_fault or (f'has the negative area {annotation["area"]}' if annotation['area'] < 0 else None)
            if fault:
                raise InputError(f"{path}: annotation {annotation['id']} {fault}, with which COCO's evaluation goes "
                                 f'wrong: correct or remove it')
            if annotation['iscrowd']:
                left_out[_CROWD].append(annotation['id'])
            elif find_reason_to_miss(annotation, image):
                missed[find_reason_to_miss(annotation, image)].append(annotation['id'])
            elif annotation.get('ignore'):
                asked_all_the_same.append(annotation['id'])
        else:
            if mask_fault:
                annotation['segmentation'] = [[]]
            reason = find_reason(annotation, image) or ('without a mask that can be read' if mask_fault else None)
            if reason:
                left_out[reason].append(annotation['id'])

    parts = {reason: _count(reason, ids) for reason, ids in {**left_out, **missed}.items()}
    if len(content['annotations']) == sum(map(len, (*left_out.values(), *missed.values()))):
        found = f'its annotations are: {"; ".join(parts.values())}' if parts else 'it has no annotations'
        raise InputError(f'{path} has nothing to {"detect" if for_evaluation else "learn"}: {found}')
    told = [parts[reason] for reason in left_out if reason != _CROWD]
    remarks = [f'annotations left out: {"; ".join(told)}'] if told else []
    if missed:
        remarks.append(f"{'; '.join(parts[reason] for reason in missed)} count as missed in COCO's evaluation, "
                       f'whatever is detected')
    if asked_all_the_same:
        remarks.append(f"{_count('marked as ignored', asked_all_the_same)} count in COCO's evaluation, which leaves "
                       f'out iscrowd alone')
    return '; '.join(remarks)


def _count(reason: str, ids: Sequence) -> str:
    return f'{len(ids)} {reason} (annotation {first_names(ids)})'


def find_mask_fault(segmentation: object, image: dict, forms: Collection[type]) -> str | None:
    """Tells what keeps pycocotools and mmdet from reading a segmentation; None if nothing does.

    pycocotools reads beyond the end of RLE that does not cover the image. A short polygon that is not the first covers
    nothing, and nobody minds it.

    Args:
        segmentation: An annotation's.
        image: The file's entry.
        forms: See :func:`check_objects`.
    """
    if not segmentation:
        return 'has no segmentation'
    if not isinstance(segmentation, (list, dict)) or type(segmentation) not in forms:
        return f'has a segmentation of type {type(segmentation).__name__}'
    if isinstance(segmentation, list):
        if not all(isinstance(part, list) and len(part) % 2 == 0 and all(map(is_number, part))
                   for part in segmentation):
            return 'has a segmentation that is not a list of polygons [x, y, x, y, …]'
        return 'has a polygon of fewer than three points' if len(segmentation[0]) < 6 else None
    size = [image['height'], image['width']]
    if segmentation.get('size') != size or not all(type(side) is int for side in segmentation['size']):
        return f'has RLE of size {segmentation.get("size")!r:.80}, not [height, width] {size}'
    counts = segmentation.get('counts')
    lengths = decode_run_lengths(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not all(type(length) is int and length >= 0 for length in lengths) \
            or sum(lengths) != size[0] * size[1]:
        return 'has RLE whose counts do not cover the image'
    return None


def decode_run_lengths(counts: str) -> list[int] | None:
    """Decodes COCO's compressed run lengths; None where the text is none.

    A number is written in characters from ``0`` on, five bits each, the lowest first; the sixth bit says that it goes
    on, and the fifth of the last character is the sign. From the fourth number on, it is the difference to the last
    but one.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - ord('0')
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
            value = shift = 0
    return None if shift else lengths


def find_reason(annotation: dict, image: dict) -> str | None:
    """Tells why training does not learn an object, in the order in which mmdet looks; None if it does."""
    if annotation.get('ignore'):
        return 'marked as ignored'
    if min(annotation['bbox'][2:]) < 1:
        return 'thinner than a pixel'
    if _is_outside(annotation, image):
        return 'outside the image'
    if annotation['area'] <= 0:
        return 'of zero area'
    return _CROWD if annotation.get('iscrowd') else None


def find_reason_to_miss(annotation: dict, image: dict) -> str | None:
    """Tells why no detection can match an object in COCO's evaluation; None if one can."""
    if min(annotation['bbox'][2:]) <= 0:
        return 'of zero width or height'
    return 'outside the image' if _is_outside(annotation, image) else None


def _is_outside(annotation: dict, image: dict) -> bool:
    x, y, w, h = annotation['bbox']
    return min(x + w, image['width']) <= max(x, 0) or min(y + h, image['height']) <= max(y, 0)
