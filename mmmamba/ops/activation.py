"""The activations that the fused operations have inside, by name."""
from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Callable

import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: Mapping[str | None, Callable[[Tensor], Tensor]] = MappingProxyType({
    None: lambda x: x,
    'gelu': F.gelu,
    'silu': F.silu,
    'relu': F.relu,
})
"""In the order of blocks.h's enumeration. GELU is the exact one, with the error function."""
