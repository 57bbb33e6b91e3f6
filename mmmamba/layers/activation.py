"""Activations by the name a config gives them."""
from __future__ import annotations

from torch import nn

from mmmamba.errors import InputError

ACTIVATIONS: dict[str, type[nn.Module]] = {'gelu': nn.GELU, 'silu': nn.SiLU, 'relu': nn.ReLU}


def build_activation(name: str) -> nn.Module:
    """The activation called ``name``; InputError, with the names there are, for any other."""
    if name not in ACTIVATIONS:
        raise InputError(f'activation must be one of {sorted(ACTIVATIONS)}, got {name!r}')
    return ACTIVATIONS[name]()
