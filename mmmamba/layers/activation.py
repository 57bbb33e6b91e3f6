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


def activation_name(module: nn.Module) -> str:
    """What a fused operation calls the activation that ``module`` is; InputError if it has not got it."""
    for name, kind in ACTIVATIONS.items():
        if type(module) is kind and getattr(module, 'approximate', 'none') == 'none':
            return name
    raise InputError(f'activation must be one of {sorted(ACTIVATIONS)}, without approximation, got {module}')
