"""Pictures that are the same, or nearly: copies inside a split, and leaks between splits."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmmamba.analysis.data_check.images import ImageFacts

MOST_BITS = 10
"""Of 64: two pictures whose hashes differ in more are not compared."""
LEAST_CORRELATION = 0.93
"""Of the grey values of two pictures made 32 x 32, from which on they count as nearly the same."""
_ROWS = 1024
_FLAT = 4.0  # standard deviation of grey values below which a picture has too little to be compared by


@dataclass(frozen=True)
class Twin:
    """A picture that resembles an earlier one.

    Args:
        index: Its place in the sequence.
        other: The earlier one's.
        exact: Whether the files are equal byte by byte.
    """
    index: int
    other: int
    exact: bool


def find_twins(images: Sequence[ImageFacts], splits: Sequence[str]) -> list[Twin]:
    """Finds, for each picture, the earlier one that it resembles most, with a picture of another split preferred.

    Hashes of 64 bits (does brightness rise from left to right, in a grid of 8 x 8) name the candidates, and the
    correlation of their 32 x 32 grey values decides: a copy that was saved anew, scaled, or made a little brighter is
    found; one that was cropped, turned or mirrored is not.

    Args:
        images: The pictures; those that were not decoded are compared by their content alone.
        splits: The split of each.

    Returns:
        At most one for each picture, in their order.
    """
    twins: dict[int, Twin] = {}
    first: dict[bytes, dict[str, int]] = {}  # content → split → first picture
    for index, (image, split) in enumerate(zip(images, splits)):
        if not image.digest:
            continue
        owners = first.setdefault(image.digest, {})
        others = [other for name, other in owners.items() if name != split]
        if owners:
            twins[index] = Twin(index, others[0] if others else owners[split], exact=True)
        owners.setdefault(split, index)
    for index, other in _near(images, splits, twins).items():
        twins[index] = Twin(index, other, exact=False)
    return [twins[index] for index in sorted(twins)]


def _near(images: Sequence[ImageFacts], splits: Sequence[str], exact: dict[int, Twin]) -> dict[int, int]:
    """Returns picture → the earlier one that it nearly is; exact copies within a split are left out."""
    compared = [index for index, image in enumerate(images) if image.thumbnail is not None and index not in exact
                and image.thumbnail.std() > _FLAT]
    if len(compared) < 2:
        return {}
    place = np.array(compared)
    names = np.array(splits, object)[place]
    # Bits as ±1: the product of two hashes is 64 less twice the bits that differ, and a matrix product is fast.
    bits = np.stack([images[index].hash for index in compared]).astype(np.float32) * 2 - 1
    values = np.stack([images[index].thumbnail.ravel() for index in compared]).astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    found = {}
    for start in range(0, len(compared), _ROWS):
        rows = slice(start, start + _ROWS)
        alike = bits[rows] @ bits[:rows.stop].T >= bits.shape[1] - 2 * MOST_BITS
        later, earlier = np.nonzero(np.tril(alike, start - 1))
        correlation = np.einsum('ij,ij->i', values[later + start], values[earlier])
        kept = correlation >= LEAST_CORRELATION
        later, earlier, correlation = later[kept] + start, earlier[kept], correlation[kept]
        # The best is last, and so the one that stays in the dict.
        for nth in np.lexsort((correlation, names[later] != names[earlier])):
            found[int(place[later[nth]])] = int(place[earlier[nth]])
    return found
