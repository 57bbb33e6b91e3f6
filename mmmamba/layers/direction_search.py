"""The search of directions (LocalMamba, arXiv 2403.09338, section 3.2): layers that scan in all, and weigh them."""
from __future__ import annotations

from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmamba.layers.local_mamba import LocalSS2D, LocalVimMixer
from mmmamba.layers.ss2d import SS2D
from mmmamba.ops.scan.orders import PATTERNS

CANDIDATES = ('h', 'h_flip', 'v', 'v_flip', 'w2', 'w2_flip', 'w7', 'w7_flip')
CHOSEN = 4
"""So many directions a layer has after the search."""


class DirectionSearch(nn.Module):
    """A mixin of layers that scan in :data:`CANDIDATES`: each direction's output is normed and weighed::

        sum over k of softmax(direction_logits)_k · LN(y_k)                               no affine part in the norm
    """

    directions: tuple[str, ...]
    direction_logits: nn.Parameter  # (8,), those of the softmax

    def weigh(self, k: int, y: Tensor) -> Tensor:
        """Returns what direction number k, whose scan returned y, (B, D, H, W), adds to the sum."""
        normed = F.layer_norm(y.permute(0, 2, 3, 1), y.shape[1:2]).permute(0, 3, 1, 2)
        return normed * self.direction_logits.softmax(0)[k]

    def probabilities(self) -> dict[str, float]:
        """Returns the probability of every direction, the most probable first."""
        found = dict(zip(self.directions, self.direction_logits.detach().softmax(0).tolist()))
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def chosen(self) -> list[str]:
        """Returns the most probable directions, in the order of :data:`CANDIDATES`."""
        return sorted(list(self.probabilities())[:CHOSEN], key=CANDIDATES.index)


class SearchedSS2D(DirectionSearch, LocalSS2D):
    """:class:`SS2D` whose directions are searched; made by :func:`search_directions`."""

    released_columns = False


class SearchedVimMixer(DirectionSearch, LocalVimMixer):
    """:class:`LocalVimMixer` whose directions are searched; made by :func:`search_directions`."""


_SEARCHED = MappingProxyType({SS2D: SearchedSS2D, LocalSS2D: SearchedSS2D, LocalVimMixer: SearchedVimMixer})


def search_directions(model: nn.Module) -> dict[str, DirectionSearch]:
    """Has every layer of ``model`` that scans a whole map do so in all candidates, in place: the paper's supernet.

    What they scan with starts anew; a gate after each direction goes. Layers that scan parts of the map
    (EfficientVMamba's) stay as they are.

    Returns:
        The changed layers by name, in the order of the model's.
    """
    changed = {}
    for name, layer in model.named_modules():
        if type(layer) not in _SEARCHED or layer.directions == PATTERNS['atrous']:
            continue
        layer.__class__ = _SEARCHED[type(layer)]  # the same parts, another sum of the directions
        layer.set_directions(CANDIDATES)
        layer.direction_logits = nn.Parameter(1e-3 * torch.randn(len(CANDIDATES)))
        if hasattr(layer, 'gate'):
            del layer.gate
        changed[name] = layer
    return changed
