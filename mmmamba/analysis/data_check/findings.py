"""What a data check finds, as plain data, from which the table, the json and the page are all written."""
from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from mmmamba.errors import first_names

ERROR, WARNING, NOTE = SEVERITIES = ('error', 'warning', 'note')
"""Training stops; training goes on, worse than it need be, or its AP means little; good to know."""


@dataclass(frozen=True)
class Kind:
    """A kind of findings: its title, how bad it is, and what to do about it."""
    title: str
    severity: str
    advice: str


KINDS: Mapping[str, Kind] = MappingProxyType({
    'data': Kind('not usable as it lies', ERROR, 'Bring it into a layout that the line names.'),
    'labels': Kind('faulty label file', ERROR, 'Training refuses it. Correct the lines, and check again.'),
    'annotation': Kind('faulty annotation file', ERROR,
                       'Training refuses the file at the first of these. Correct or remove the entries.'),
    'missing_image': Kind('image missing on the disk', ERROR,
                          'Training does not start. Put the files back, or take their entries out.'),
    'unusable': Kind('most images are unusable', ERROR, 'Training stops as soon as it has met that many.'),
    'unreadable': Kind('unreadable image', WARNING,
                       'Training does without it; a validation on COCO files stops at it. Save it anew, or take it '
                       'out.'),
    'size_differs': Kind('image of another size than annotated', WARNING,
                         'Its boxes are at wrong places. Training replaces it by another; a validation stops at it.'),
    'too_thin': Kind('image too thin to be scaled', WARNING,
                     'Training replaces it by another; a validation stops at it. Crop it.'),
    'leak': Kind('same picture in two splits', WARNING,
                 'AP will flatter: the detector is asked for what it has learnt. Leave the picture in one of them.'),
    'near_leak': Kind('nearly the same picture in two splits', WARNING,
                      'AP will flatter if they are of one scene: frames of a video, a crop, a copy saved anew. '
                      'Split by scene or by day instead of by picture.'),
    'outside': Kind('box outside the image', WARNING, 'Training leaves it out; in a validation it counts as missed.'),
    'no_area': Kind('box without area', WARNING,
                    'Training leaves out what is thinner than a pixel or has no area; in a validation it may count as '
                    'missed.'),
    'beyond': Kind('box beyond the border', WARNING,
                   'It is cut at the border. Often the image was cropped or scaled after it was annotated.'),
    'mask': Kind('mask that cannot be read', WARNING,
                 'Detectors with masks ignore the object in training, and refuse it in a validation.'),
    'two_classes': Kind('one object, two classes', WARNING,
                        'Two boxes of different classes at one place teach the detector a coin toss. Keep one.'),
    'duplicate_box': Kind('box twice', WARNING,
                          'The object counts twice in training, and one of the two is missed in a validation. Keep '
                          'one.'),
    'tiny': Kind('object too small at the training size', WARNING,
                 'Scaled to the training size it has less than 2 pixels. Train at a larger size, or cut images into '
                 'tiles.'),
    'no_class': Kind('class without objects', WARNING,
                     'Not in train: it cannot be learnt. Not in val: its AP is not measured.'),
    'imbalance': Kind('rare class', WARNING,
                      'It has less than a twentieth of the objects of the most frequent class, and its AP will be '
                      'poor and noisy. Collect more of it, or merge it with another.'),
    'no_truth': Kind('no annotations', WARNING, 'AP will be -1.'),
    'deep': Kind('16 bits a channel, or CMYK', WARNING,
                 'It becomes 8 bits of RGB while it is loaded. Check that it still shows what matters.'),
    'elongated': Kind('very elongated image', WARNING,
                      'Padded to a square, most of what the detector sees is grey. Cut it into pieces.'),
    'duplicate': Kind('same picture twice in a split', WARNING,
                      'It counts twice; its objects may be annotated in one copy alone. Keep one.'),
    'near_duplicate': Kind('nearly the same picture twice in a split', NOTE,
                           'Frames of one scene add little, and weigh that scene more.'),
    'empty': Kind('image without objects', NOTE, 'Trained on as a negative. Make sure that there is really nothing.'),
    'unlisted': Kind('image that no annotation file lists', NOTE,
                     'It is not used. List it; without objects it is a negative.'),
    'ignored': Kind('object marked as ignored', NOTE,
                    "Training leaves it out, such as VOC's difficult ones. COCO's evaluation leaves out only what has "
                    'iscrowd, too.'),
    'whole_image': Kind('box of nearly the whole image', NOTE, 'Fine for close-ups; else a label of the image.'),
    'elongated_box': Kind('very elongated box', NOTE, 'Longer than 20 times its width: often a slip of the mouse.'),
    'channels': Kind('grey image, or one with transparency', NOTE,
                     'Grey becomes three equal channels, and transparency is dropped: the hidden part shows.'),
})
"""In the order of reports."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Args:
        kind: Of :data:`KINDS`.
        severity: ``'error'``, ``'warning'`` or ``'note'``.
        split: ``'train'``, ``'val'``, ``'test'``, or empty where it is the whole set's.
        sentence: What it is, with names and numbers.
        file: The image's file name in the annotation file; empty if it is none's.
        annotations: Ids of the annotations that it is about, in that split.
        other: For pictures that are alike, the split and file name of the other one.
    """
    kind: str
    severity: str
    split: str
    sentence: str
    file: str = ''
    annotations: tuple = ()
    other: tuple[str, str] | None = None


@dataclass(frozen=True)
class SplitSummary:
    """Counts of a split.

    Args:
        annotations: The file.
        folder: Of the images.
        images: Number of images that it lists.
        empty: How many of them have no object.
        objects: Annotations, without crowds.
        classes: Class → objects.
        sizes: ``small``, ``medium`` and ``large`` as COCO counts them (areas below 32² and 96² pixels) → objects.
        scaled_sides: Bin of the square root of a box's area at the training size, in pixels → objects.
        aspect_ratios: Bin of width / height → objects.
        crowding: Objects an image → images.
        image_sizes: ``'640 x 480'`` → images, the most frequent first.
    """
    annotations: str
    folder: str
    images: int
    empty: int
    objects: int
    classes: Mapping[str, int]
    sizes: Mapping[str, int]
    scaled_sides: Mapping[str, int]
    aspect_ratios: Mapping[str, int]
    crowding: Mapping[str, int]
    image_sizes: Mapping[str, int]


@dataclass(frozen=True)
class DataReport:
    """The result of a check.

    Args:
        path: What was checked.
        format: ``'COCO'``, ``'YOLO'`` or ``'VOC'``; empty where nothing was recognised.
        image_size: Width and height in pixels that training scales images into.
        quick: Whether only the headers of images were read.
        classes: In the order of labels.
        remarks: Of the format's reader.
        splits: Counts.
        findings: In the order of :data:`KINDS`, of severity first.
    """
    path: str
    format: str
    image_size: tuple[int, int]
    quick: bool
    classes: Sequence[str] = ()
    remarks: Sequence[str] = ()
    splits: Mapping[str, SplitSummary] = field(default_factory=dict)
    findings: Sequence[Finding] = ()

    def groups(self) -> list[tuple[str, str, list[Finding]]]:
        """Returns (severity, kind, its findings of that severity), the worst first."""
        groups = []
        for severity in SEVERITIES:
            for kind in KINDS:
                found = [item for item in self.findings if (item.kind, item.severity) == (kind, severity)]
                if found:
                    groups.append((severity, kind, found))
        return groups

    @property
    def can_train(self) -> bool:
        """Tells whether training would go through."""
        return not any(item.severity == ERROR for item in self.findings)

    @property
    def verdict(self) -> str:
        """Says in one line whether training can start; a kind of warnings counts once."""
        groups = self.groups()
        errors = [found for severity, _, found in groups if severity == ERROR]
        if errors:
            others = sum(map(len, errors)) - 1
            more = f' (and {others} more error{"s" * (others > 1)})' if others else ''
            return f'training cannot start: {errors[0][0].sentence}{more}'
        warnings = sum(severity == WARNING for severity, _, _ in groups)
        return f'training can start{f"; {warnings} warning" if warnings else ""}{"s" * (warnings > 1)}'

    def as_json(self) -> dict[str, Any]:
        """Returns the report as ``report.json`` has it.

        The keys are the fields of this class, with those of :class:`SplitSummary` and of :class:`Finding` inside, and
        ``can_train`` (true or false) and ``verdict`` (a line). All findings are there, however many.
        """
        return {'verdict': self.verdict, 'can_train': self.can_train, **dataclasses.asdict(self)}


def shown(text: object) -> str:
    """Returns a name of the user's as it can be printed: in one line, without what steers a terminal."""
    return ''.join(sign if sign.isprintable() else '\N{REPLACEMENT CHARACTER}' for sign in str(text))


def listed(names: Sequence[object], limit: int = 3) -> str:
    """Returns the first of some names of the user's, and … if there are more."""
    return first_names([shown(name) for name in names], limit)
