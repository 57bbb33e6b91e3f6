"""The images with most errors, with boxes that are coloured by their outcome; and what may lack a label."""
from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from mmmamba.analysis.report.matching import ImageOutcome
from mmmamba.datasets.transforms.load_checked_image import load_annotated_image

IMAGES = 12
CROPS = 50
_LABELS = 8  # of a picture: more would hide it
_SIDE = 640  # the longer one, in pixels
_QUALITY = 80
_CROP = 112  # pixels of its side
_GREY = 127
_AROUND = 2.0  # times as long as the detection in its middle
STYLE = """
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); gap: .5rem; }
.gallery { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
.gallery figcaption { margin-top: .4rem; font-size: .85rem; color: var(--muted); overflow-wrap: anywhere; }
.gallery svg { width: 100%; height: auto; border-radius: 6px; }
.gallery rect { fill: transparent; stroke-width: 2; vector-effect: non-scaling-stroke; }
.gallery text { font-family: system-ui, sans-serif; font-weight: 600; paint-order: stroke; stroke-width: .22em;
  stroke: #000a; fill: #fff; }
.gallery .right { stroke: #4db2ff; }
.gallery .wrong { stroke: #ff6a3d; }
.crops { display: grid; gap: .5rem; grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); }
.crops svg { width: 100%; height: auto; border-radius: 6px; display: block; }
.crops rect { fill: none; stroke: #ff6a3d; stroke-width: 2; vector-effect: non-scaling-stroke; }
.crops figcaption { font-size: .75rem; color: var(--muted); overflow-wrap: anywhere; }
.key { font-weight: 600; }
.key.right { color: var(--accent); } .key.wrong { color: var(--bad); }
"""
"""Boxes are blue and orange, which the colour-blind tell apart, and light enough for dark pictures."""


def worst(results: Iterable[ImageOutcome]) -> list[ImageOutcome]:
    """Returns the images with errors, those with most of them first, at most :data:`IMAGES`."""
    return sorted((result for result in results if result.errors), key=lambda result: -result.errors)[:IMAGES]


def by_id(truth: dict) -> tuple[dict[int, dict], dict[int, str]]:
    """Returns the images of a COCO file, and the names of its classes, by their ids."""
    return ({image['id']: image for image in truth['images']},
            {category['id']: category['name'] for category in truth['categories']})


def gallery(results: Sequence[ImageOutcome], truth: dict, folder: Path) -> str:
    """Draws images twice: with their objects, and with the detections.

    Args:
        results: What :func:`worst` returned.
        truth: The content of the COCO file.
        folder: Of the images.

    Returns:
        HTML with the pictures in it.

    Raises:
        InputError: An image cannot be read, or has another size than its annotations.
    """
    images, names = by_id(truth)
    figures = [_figure(result, images[result.image], names, folder, f'picture{number}')
               for number, result in enumerate(results)]
    return f'<div class="gallery">{"".join(figures)}</div>'


def crops(detections: Sequence[dict], truth: dict, folder: Path) -> str:
    """Draws detections, each in the middle of a square of its surroundings.

    Args:
        detections: Of the COCO results.
        truth: The content of the COCO file.
        folder: Of the images.

    Returns:
        HTML with the pictures in it.

    Raises:
        InputError: An image cannot be read, or has another size than its annotations.
    """
    images, names = by_id(truth)
    figures = {}
    for key in {item['image_id'] for item in detections}:  # a large image is in memory once, and alone
        pixels = load_annotated_image(images[key], folder)
        for number, item in enumerate(detections):
            if item['image_id'] == key:
                title = html.escape(f'{names[item["category_id"]]} {item["score"]:.2f}')
                figures[number] = (f'<figure>{_crop(pixels, item["bbox"], title)}<figcaption>{title}<br>'
                                   f'{html.escape(images[key]["file_name"])}</figcaption></figure>')
    return f'<div class="crops">{"".join(figures[number] for number in range(len(detections)))}</div>'


def _crop(pixels: np.ndarray, bbox: Sequence[float], title: str) -> str:
    """Draws a box (x, y, width, height) in the middle of a square of an image (H, W, 3), grey outside of it."""
    limits = np.array(pixels.shape[1::-1])
    corner, size = np.array(bbox[:2]), np.array(bbox[2:])
    scale = _CROP / (_AROUND * max(min(size.max(), limits.max()), 1))  # of the picture over the image
    start = corner + size / 2 - _CROP / scale / 2
    first, last = (np.clip(edge, 0, limits).round().astype(int) for edge in (start, start + _CROP / scale))
    square = np.full((_CROP, _CROP, 3), _GREY, np.uint8)
    if (first < last).all():
        part = pixels[first[1]:last[1], first[0]:last[0]]
        place = np.clip(((first - start) * scale).round().astype(int), 0, _CROP - 1)
        width, height = np.clip(((last - first) * scale).round().astype(int), 1, _CROP - place)
        square[place[1]:place[1] + height, place[0]:place[0] + width] = cv2.resize(
            part, (int(width), int(height)), interpolation=cv2.INTER_AREA)
    (x, y), (width, height) = (corner - start) * scale, size * scale
    return (f'<svg viewBox="0 0 {_CROP} {_CROP}" role="img" aria-label="{title}">'
            f'<image href="{_jpeg(square)}" width="{_CROP}" height="{_CROP}"/>'
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/></svg>')


def _figure(result: ImageOutcome, image: dict, names: Mapping[int, str], folder: Path, key: str) -> str:
    pixels = (f'<image id="{key}" href="{_picture(image, folder)}" width="{image["width"]}" '
              f'height="{image["height"]}" preserveAspectRatio="none"/>')
    again = f'<use href="#{key}"/>'
    right, of = zip(*result.found) if result.found else ((), ())
    confused, instead_of = zip(*result.confused) if result.confused else ((), ())
    wrong = sorted([*confused, *result.false], key=lambda item: -item['score'])
    views = ''.join(
        f'<svg viewBox="0 0 {image["width"]} {image["height"]}" role="img" aria-label="{label}">{background}'
        f'{_boxes(blue, "right", image, names)}{_boxes(orange, "wrong", image, names)}</svg>'
        for label, background, blue, orange in (('objects', pixels, of, [*instead_of, *result.missed]),
                                                ('detections', again, right, wrong)))
    counts = (f'{len(result.found)} found, {len(result.missed)} missed, {len(result.false)} false, '
              f'{len(result.confused)} of a wrong class')
    return (f'<figure class="card"><div class="pair">{views}</div>'
            f'<figcaption>{html.escape(image["file_name"])}: {counts}</figcaption></figure>')


def _boxes(items: Sequence[dict], kind: str, image: dict, names: Mapping[int, str]) -> str:
    """Draws boxes, each with class and score under the pointer; the first wrong ones are labelled, too."""
    drawn, labels = [], []  # labels come last, above all boxes
    for number, item in enumerate(items):
        title = html.escape(names[item['category_id']] + (f' {item["score"]:.2f}' if 'score' in item else ''))
        x, y, width, height = (round(value, 1) for value in item['bbox'])
        drawn.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}"><title>{title}</title>'
                     '</rect>')
        if kind == 'wrong' and number < _LABELS:
            labels.append(_label(title, x, y, image))
    return ''.join([*drawn, *labels])


def _label(text: str, x: float, y: float, image: dict) -> str:
    """Writes text into the upper left corner of a box; to the left where it would leave the picture."""
    size = 0.035 * max(image['width'], image['height'])
    ends = x + 0.65 * size * len(text) > image['width']
    place = image['width'] - size / 4 if ends else max(x, 0) + size / 4
    return (f'<text x="{place:.1f}" y="{max(y, 0) + size:.1f}" font-size="{size:.1f}" '
            f'text-anchor="{"end" if ends else "start"}">{text}</text>')


def _picture(image: dict, folder: Path) -> str:
    """Returns an image as a JPEG of limited size, in an address of its own."""
    pixels = load_annotated_image(image, folder)
    scale = min(1.0, _SIDE / max(pixels.shape[:2]))
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    return _jpeg(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))


def _jpeg(pixels: np.ndarray) -> str:
    """Returns an image (H, W, 3), RGB, in an address of its own."""
    content = cv2.imencode('.jpg', pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
    return f'data:image/jpeg;base64,{base64.b64encode(content).decode()}'
