"""YOLO's label files: a line an object, with a class number and shares of the image's width and height."""
from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from mmmamba.datasets.formats.conversion import DECIMALS, LabelledObject, Labels, Remarks, finite_number
from mmmamba.datasets.formats.listing import Listing
from mmmamba.errors import InputError

MOST_CLASSES = 100_000
"""A slip such as ``nc: 1000000000`` would fill the memory with names."""
_FEWEST_DIGITS = 6
"""After the point, in what most tools write; fewer are written where zeros are left out at the end."""
_TOLERANCE = 0.1
"""How far a share may lie outside of 0 to 1, which rounding and augmentation do, and is clipped."""


class YoloLabels:
    """Reads label files.

    A line is ``class x y w h`` (the box's centre and size), or ``class x y x y x y …``, a polygon. A file without a
    line is an image without objects. Two lines that are the same are one object.

    Coordinates in pixels get the fewest digits that the written ones allow: of 0.123438 · 640 = 79.00032, which may
    lie between 79.0000 and 79.0006, that is 79. So boxes that were whole pixels before are that again.

    Args:
        listing: Reads the files.
        known: The classes' numbers; None if there are no names, so that any will do.
        keypoints: Numbers that follow a box, for the keypoints of a pose; they are left out.
    """

    def __init__(self, listing: Listing, known: Collection[int | str] | None, keypoints: int) -> None:
        self.listing, self.known, self.keypoints = listing, known, keypoints

    def __call__(self, path: Path, size: tuple[int, int], remarks: Remarks) -> Labels:
        """Returns a file's objects; see :class:`mmmamba.datasets.formats.conversion.ReadLabels`.

        Raises:
            InputError: A line is malformed; it is named.
        """
        objects: dict[tuple[str, ...], LabelledObject] = {}
        for number, line in enumerate(self.listing.text(path).splitlines(), start=1):
            words = tuple(line.split())
            if words in objects:
                remarks.add('lines left out, which repeat another one', f'{path}, line {number}')
            elif words:
                objects[words] = self._object(words, size, f'{path}, line {number}')
        return Labels(list(objects.values()))

    def _object(self, words: tuple[str, ...], size: tuple[int, int], where: str) -> LabelledObject:
        key = self._key(words[0], where)
        shares = [_share(word, where) for word in words[1:]]
        if self.keypoints and len(shares) == 4 + self.keypoints:
            shares = shares[:4]
        if len(shares) != 4 and (len(shares) < 6 or len(shares) % 2):
            raise InputError(f'{where}: there are {len(words)} numbers; a box has 5 (class x y w h), a polygon has 7 '
                             f'or more (class x y x y x y …)')
        wrong = next((share for share in shares if not -_TOLERANCE <= share <= 1 + _TOLERANCE), None)
        if wrong is not None:
            raise InputError(f"{where}: {wrong:g} is outside of 0 to 1: YOLO's coordinates are shares of the image's "
                             f'width and height, not pixels')
        digits = max(len(word.partition('.')[2]) if 'e' not in word.lower() else 16 for word in words[1:])
        unit = 10.0**-max(digits, _FEWEST_DIGITS)
        if len(shares) == 4:
            box = []
            for centre, extent, side in ((shares[0], shares[2], size[0]), (shares[1], shares[3], size[1])):
                if extent < 0:
                    raise InputError(f'{where}: the size {extent:g} of a box is negative')
                # Half a unit of the centre and a quarter of the size's may have been rounded away.
                box += [_shortest((centre + sign * extent / 2) * side, 0.75 * unit * side) for sign in (-1, 1)]
            return LabelledObject(key, (box[0], box[2], box[1], box[3]), where)
        points = [_shortest(share * size[index % 2], 0.5 * unit * size[index % 2])
                  for index, share in enumerate(shares)]
        xs, ys = points[::2], points[1::2]
        return LabelledObject(key, (min(xs), min(ys), max(xs), max(ys)), where, tuple(points))

    def _key(self, word: str, where: str) -> int:
        share = _share(word, where)
        if share != int(share) or not 0 <= share < MOST_CLASSES:
            raise InputError(f'{where}: {word!r:.80} is no class number: they are whole numbers from 0 '
                             f'to {MOST_CLASSES - 1}')
        if self.known is not None and int(share) not in self.known:
            raise InputError(f'{where}: class {int(share)} has no name; the classes are '
                             f'{_ranges(sorted(map(int, self.known)))}: add its name, or correct the line')
        return int(share)


def _share(word: str, where: str) -> float:
    share = finite_number(word)
    if share is None:
        raise InputError(f'{where}: {word!r:.80} is no number')
    return share


def _shortest(value: float, error: float) -> float:
    """Returns the number with the fewest decimals that lies no farther than ``error`` from ``value``.

    Where a share ends exactly between two that can be written, as odd numbers of 128 or 256 pixels do, all of the
    error is used up, and the arithmetic adds a little.
    """
    error += 1e-9
    for decimals in range(DECIMALS):
        short = round(value, decimals)
        if abs(short - value) <= error:
            return short
    return round(value, DECIMALS)


def _ranges(numbers: list[int]) -> str:
    """Writes numbers as in ``'0 to 3, 7'``."""
    starts = [number for number in numbers if number - 1 not in numbers]
    ends = [number for number in numbers if number + 1 not in numbers]
    return ', '.join(str(start) if start == end else f'{start} to {end}' for start, end in zip(starts, ends))
