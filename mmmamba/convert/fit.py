"""Whether weights are exactly those that a model has."""
from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mmmamba.errors import InputError, first_names


def require_fit(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], message: str) -> None:
    """Checks that weights have the names and shapes that a model has.

    Args:
        expected: The model's state dict.
        weights: Another state dict.
        message: What the error begins with.

    Raises:
        InputError: Names are missing or unknown, or shapes differ; it names the first of each kind.
    """
    missing = [name for name in expected if name not in weights]
    unknown = [name for name in weights if name not in expected]
    reshaped = [f'{name} is {tuple(weights[name].shape)}, not {tuple(tensor.shape)}'
                for name, tensor in expected.items() if name in weights and weights[name].shape != tensor.shape]
    kinds = (('weights are missing', missing), ('are unknown', unknown), ('have another shape', reshaped))
    problems = [f'{len(names)} {phrase} ({first_names(names)})' for phrase, names in kinds if names]
    if problems:
        raise InputError(f'{message}: {"; ".join(problems)}')
