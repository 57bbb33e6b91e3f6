"""In which order the directions of a pattern visit the pixels of a map."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _cross(height: int, width: int, device: torch.device) -> Tensor:
    rows = torch.arange(height * width, device=device).view(height, width)
    row_major, column_major = rows.flatten(), rows.t().flatten()
    return torch.stack([row_major, column_major, row_major.flip(0), column_major.flip(0)])


def _atrous(height: int, width: int, device: torch.device) -> Tensor:
    pixels = torch.arange(height * width, device=device).view(height, width)
    if height and width:  # PyTorch 2.4 pads no empty map
        pixels = F.pad(pixels, (0, width % 2, 0, height % 2), value=height * width)
    submaps = [pixels[0::2, 0::2], pixels[1::2, 0::2].t(), pixels[0::2, 1::2], pixels[1::2, 1::2].t()]
    return torch.stack([submap.flatten() for submap in submaps])


def _sequence(height: int, width: int, device: torch.device) -> Tensor:
    return torch.arange(height * width, device=device).unsqueeze(0)


MAP_PATTERNS = {'cross': _cross, 'atrous': _atrous}
PATTERNS = {'sequence': _sequence, **MAP_PATTERNS}


def token_count(pattern: str, pixels: int, width: int) -> int:
    """Returns how many tokens each direction of a pattern visits in a map of so many pixels."""
    if pattern != 'atrous':
        return pixels
    height = pixels // max(width, 1)
    return -(-height // 2) * -(-width // 2)


def scan_orders(pattern: str, height: int, width: int, device: torch.device) -> Tensor:
    """Returns the order of visits (directions, tokens), int64: the row-major pixel index of every token.

    'sequence' visits all pixels once, in order. 'cross' visits all pixels in each of four directions: row-major,
    column-major, and both reversed. 'atrous' splits the map, zero-padded to even sides, into four sub-maps of every
    other row and column, and visits each in one direction. A padded pixel has the index height·width; its x is zero,
    but it takes a step of the scan like any other.
    """
    return PATTERNS[pattern](height, width, device)
