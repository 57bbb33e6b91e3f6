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


def activation_name(module: nn.Module) -> str | None:
    """What a fused operation calls the activation that ``module`` is; None if it has not got it."""
    if isinstance(module, nn.GELU) and module.approximate != 'none':
        return None
    return next((name for name, kind in ACTIVATIONS.items() if type(module) is kind), None)
