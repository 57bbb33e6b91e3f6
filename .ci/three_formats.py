"""A part of a data set, written in COCO's, YOLO's and VOC's format: the same pictures, classes and objects.

VOC has whole pixels only, so every box and polygon is rounded to them before any format is written.
"""
from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np
import yaml
from pycocotools.coco import COCO

from mmmamba.datasets.formats import find_data


class Thing(NamedTuple):
    """An object: its class, its box (left, top, right, bottom), and its polygon (points, 2), empty without a mask."""

    label: int
    box: tuple[int, int, int, int]
    polygon: np.ndarray


class Picture(NamedTuple):
    """A picture: where it is, its name in all formats, its split, width and height, and its objects."""

    source: Path
    name: str
    split: str
    size: tuple[int, int]
    things: list[Thing]


class Pictures(NamedTuple):
    """Pictures, not in the order of their names, and their classes."""

    classes: tuple[str, ...]
    pictures: list[Picture]

    def with_masks(self) -> Pictures:
        """Returns the pictures with the objects alone that have a mask; their boxes are those of their polygons."""
        return Pictures(self.classes, [picture._replace(things=[
            thing._replace(box=(*thing.polygon.min(0).tolist(), *thing.polygon.max(0).tolist()))
            for thing in picture.things if len(thing.polygon)]) for picture in self.pictures])


def read_pictures(data: Path, counts: dict[str, int]) -> Pictures:
    """Reads a data set in any format, and chooses pictures of each split, always the same."""
    found = find_data(data)
    pictures = []
    for split, count in counts.items():
        coco = COCO(str(found.splits[split].annotations))
        labels = {category['id']: found.classes.index(category['name']) for category in coco.cats.values()
                  if category['name'] in found.classes}
        for image in random.Random(0).sample(list(coco.imgs.values()), min(count, len(coco.imgs))):
            things = {}
            for item in coco.imgToAnns[image['id']]:
                thing = _thing(coco, image, item, labels)
                if thing:  # once: in YOLO's format, two lines that are the same are one object
                    things[thing.label, thing.box] = thing
            source = found.splits[split].images / image['file_name']
            pictures.append(Picture(source, f'{split} {Path(image["file_name"]).name}', split,
                                    (image['width'], image['height']), list(things.values())))
    return Pictures(found.classes, pictures)


def _thing(coco: COCO, image: dict, item: dict, labels: dict[int, int]) -> Thing | None:
    """Returns an annotation in whole pixels inside its image; None for a crowd, and if nothing of it is left."""
    x, y, width, height = item['bbox']
    limits = [image['width'], image['height']]
    left, top, right, bottom = np.rint([x, y, x + width, y + height]).clip(0, limits * 2).astype(int).tolist()
    if item.get('iscrowd') or item['category_id'] not in labels or right <= left or bottom <= top:
        return None
    polygon = np.zeros((0, 2), int)
    if item.get('segmentation'):
        contours, _ = cv2.findContours(coco.annToMask(item), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        largest = max(contours, key=cv2.contourArea, default=polygon)
        if len(largest) and cv2.contourArea(largest):
            polygon = largest[:, 0]
    return Thing(labels[item['category_id']], (left, top, right, bottom), polygon)


def write_coco(data: Pictures, root: Path, masks: bool) -> None:
    """Writes a folder for each split and ``annotations/{split}.json``."""
    for split, pictures in _splits(data):
        images, annotations = [], []
        for number, picture in enumerate(pictures, start=1):
            _copy(picture, root / split)
            width, height = picture.size
            images.append(dict(id=number, file_name=picture.name, width=width, height=height))
            for thing in picture.things:
                left, top, right, bottom = thing.box
                # The area of a polygon is that which the converter of YOLO's format computes, not that of its mask.
                area = cv2.contourArea(thing.polygon.astype(np.int32)) if masks else (right - left) * (bottom - top)
                annotations.append(dict(
                    id=len(annotations) + 1, image_id=number, category_id=thing.label + 1, iscrowd=0, area=area,
                    bbox=[left, top, right - left, bottom - top],
                    **({'segmentation': [thing.polygon.ravel().tolist()]} if masks else {})))
        categories = [dict(id=number, name=name) for number, name in enumerate(data.classes, start=1)]
        _write(root / 'annotations' / f'{split}.json',
               json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def write_yolo(data: Pictures, root: Path, masks: bool) -> None:
    """Writes ``images/{split}``, ``labels/{split}`` with six decimals, and ``data.yaml``."""
    for split, pictures in _splits(data):
        for picture in pictures:
            _copy(picture, root / 'images' / split)
            lines = []
            for thing in picture.things:
                left, top, right, bottom = thing.box
                shares = thing.polygon if masks else np.array(
                    [[(left + right) / 2, (top + bottom) / 2], [right - left, bottom - top]])
                lines.append(' '.join([str(thing.label), *(f'{x:.6f}' for x in (shares / picture.size).ravel())]))
            _write((root / 'labels' / split / picture.name).with_suffix('.txt'), '\n'.join(lines))
    _write(root / 'data.yaml', yaml.safe_dump(dict(train='images/train', val='images/val', names=[*data.classes])))


def write_voc(data: Pictures, root: Path, masks: bool) -> None:
    """Writes JPEGImages, Annotations with corners from 1, ImageSets/Main, and the order of the classes."""
    assert not masks, 'VOC has no polygons'
    for split, pictures in _splits(data):
        for picture in pictures:
            _copy(picture, root / 'JPEGImages')
            top = ElementTree.Element('annotation')
            ElementTree.SubElement(top, 'filename').text = picture.name
            size = ElementTree.SubElement(top, 'size')
            for side, pixels in zip(('width', 'height', 'depth'), (*picture.size, 3)):
                ElementTree.SubElement(size, side).text = str(pixels)
            for thing in picture.things:
                item = ElementTree.SubElement(top, 'object')
                ElementTree.SubElement(item, 'name').text = data.classes[thing.label]
                corners = ElementTree.SubElement(item, 'bndbox')
                for side, pixels in zip(('xmin', 'ymin', 'xmax', 'ymax'), thing.box):
                    ElementTree.SubElement(corners, side).text = str(pixels + 1)
            _write((root / 'Annotations' / picture.name).with_suffix('.xml'),
                   ElementTree.tostring(top, encoding='unicode'))
        _write(root / 'ImageSets' / 'Main' / f'{split}.txt', '\n'.join(Path(one.name).stem for one in pictures))
    _write(root / 'labels.txt', '\n'.join(data.classes))


WRITERS = {'COCO': write_coco, 'YOLO': write_yolo, 'VOC': write_voc}


def _splits(data: Pictures) -> Iterator[tuple[str, list[Picture]]]:
    for split in dict.fromkeys(picture.split for picture in data.pictures):
        yield split, [picture for picture in data.pictures if picture.split == split]


def _copy(picture: Picture, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(picture.source, folder / picture.name)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')
