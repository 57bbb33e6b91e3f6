"""The fused scan as operators of PyTorch: one for each library of kernels, all with one contract.

Both ops of this package reduce to it: a *head* is a direction in which all channels of a map are scanned, or, in the
pattern ``'sequence'``, a group of channels. Nothing of size heads · tokens · channels is made. Registered with
``torch.library`` (schema, fake, autograd, FLOPs), so that ``torch.compile``, ``torch.export``, CUDA graphs, activation
checkpointing and ``FlopCounterMode`` see an ordinary operator.
"""
from __future__ import annotations

from typing import Any, Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mmmamba.ops.dispatch import refuse_second_derivative, refusing_forward_mode
from mmmamba.ops.flops import scan_backward_flops, scan_flops
from mmmamba.ops.orders import token_count

_TENSORS = 'Tensor x, Tensor projected, Tensor? delta, Tensor? dt_weight, Tensor? bias, Tensor A, Tensor? D, Tensor? W'
_OPTIONS = 'str pattern, SymInt width, bool softplus'
_FORWARD_SCHEMA = f'({_TENSORS}, {_OPTIONS}, bool keep) -> (Tensor, Tensor, Tensor)'
_BACKWARD_SCHEMA = (
    f'(Tensor grad_y, Tensor? grad_last_state, {_TENSORS}, Tensor states, {_OPTIONS}) -> ({", ".join(["Tensor"] * 8)})'
)

FusedScan = Callable[..., 'tuple[Tensor, Tensor]']


def register(
    name: str,
    forward: Callable[..., tuple[Tensor, Tensor, Tensor]],
    backward: Callable[..., tuple[Tensor, ...]],
    states_size: Callable[..., int | torch.SymInt],
) -> FusedScan:
    """Registers ``mmmamba::<name>`` and ``mmmamba::<name>_backward`` and returns the scan, a differentiable function.

    The scan takes, all contiguous:

    * x (batch, pixels, groups · channels): float32, float16 or bfloat16; the pixels of a map in row-major order.
    * projected (batch, pixels, heads, R + 2 N), float32: dt (R), B (N) and C (N) of every pixel and head.
    * delta: with ``'sequence'``, step sizes shaped as x; or None: then they are ``dt_weight @ dt``.
    * dt_weight (heads, channels, R), float32; None with delta.
    * bias (heads, channels), float32: added to the step sizes; or None.
    * A (heads, channels, N), float32, and D (heads, channels), float32, the skip weights, or None.
    * W (heads, channels, N), float32: weights of the states in the output, y = sum over n of W C h, plus D x; or None
      for ones. A constant C is a W with a C of ones; a constant B is one with a B of ones, and h / B for h.
    * pattern: ``'sequence'``, ``'cross'`` or ``'atrous'``, see :mod:`mmmamba.ops.orders`.
    * width: of the map; the number of pixels for ``'sequence'``.
    * softplus: whether step sizes go through softplus.

    It returns y, shaped as x and of its dtype, the sum over the directions, and the states (batch, heads, channels, N)
    after the last steps, float32. State and accumulation are float32. There are no atomics: on one device,
    with one number of threads, every run gives the same.

    Args:
        name: Of the operator.
        forward: Takes what the scan takes, and ``keep``, whether a backward pass may follow; returns y, the last
            states, and the states that the backward pass needs, flat (empty without ``keep``).
        backward: Takes the gradients of y and of the last states (or None), the scan's tensors, the kept states, and
            the scan's options; returns the gradients of the eight tensors, an empty tensor for one that is None.
        states_size: How many numbers the kept states are, from (x, projected, A, pattern, width). They are flat, so
            that no dimension of one chunk makes an exported program hold for small maps only.
    """

    def dense(function: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
        """``function`` of contiguous tensors: compilers may choose other layouts."""
        return refusing_forward_mode(lambda *inputs: function(*(_contiguous(value) for value in inputs)))

    forward_op = torch.library.custom_op(f'mmmamba::{name}', dense(forward), mutates_args=(), schema=_FORWARD_SCHEMA)
    backward_op = torch.library.custom_op(
        f'mmmamba::{name}_backward', dense(backward), mutates_args=(), schema=_BACKWARD_SCHEMA
    )

    @forward_op.register_fake
    def _(x, projected, delta, dt_weight, bias, A, D, W, pattern, width, softplus, keep):
        states = states_size(x, projected, A, pattern, width) if keep else 0
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        return y, A.new_empty(x.shape[0], *A.shape), A.new_empty(states)

    @backward_op.register_fake
    def _(grad_y, grad_last_state, x, projected, delta, dt_weight, bias, A, D, W, states, pattern, width, softplus):
        tensors = (x, projected, delta, dt_weight, bias, A, D, W)
        return tuple(
            x.new_empty(0) if tensor is None else torch.empty_like(tensor, memory_format=torch.contiguous_format)
            for tensor in tensors
        )

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, pattern, width, softplus, keep = inputs
        ctx.save_for_backward(*tensors, output[2])
        ctx.options, ctx.keep = (pattern, width, softplus), keep
        ctx.set_materialize_grads(False)

    def differentiate(ctx: Any, grad_y: Tensor | None, grad_last_state: Tensor | None, _: Any) -> tuple[Any, ...]:
        refuse_second_derivative()
        if not ctx.keep:
            raise RuntimeError('This scan was traced without gradients and kept no states for them; trace it with.')
        *tensors, states = ctx.saved_tensors
        grad_y = torch.zeros_like(tensors[0]) if grad_y is None else grad_y
        gradients = backward_op(grad_y, grad_last_state, *tensors, states, *ctx.options)
        wanted = (None if tensor is None else gradient for tensor, gradient in zip(tensors, gradients))
        return *wanted, None, None, None, None

    forward_op.register_autograd(differentiate, setup_context=setup_context)
    _register_flops(name)

    def scan(*inputs: Any) -> tuple[Tensor, Tensor]:
        tensors = [_contiguous(tensor) for tensor in inputs[:8]]
        keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
        y, last_state, _ = forward_op(*tensors, *inputs[8:], keep)
        return y, last_state

    return scan


def _contiguous(value: Any) -> Any:
    return value.contiguous() if isinstance(value, Tensor) else value


def _register_flops(name: str) -> None:
    operator, backward_operator = (getattr(torch.ops.mmmamba, name + suffix) for suffix in ('', '_backward'))

    def sizes(x: Any, dt_weight: Any, A: Any, pattern: str, width: int) -> tuple[int, ...]:
        (heads, channels, states), rank = A, 0 if dt_weight is None else dt_weight[2]
        return x[0], token_count(pattern, x[1], width), heads * channels, states, rank

    @register_flop_formula(operator)
    def _(x, projected, delta, dt_weight, bias, A, D, W, pattern, width, *_: Any, **__: Any) -> int:
        return scan_flops(*sizes(x, dt_weight, A, pattern, width))

    @register_flop_formula(backward_operator)
    def _(grad_y, grad_last_state, x, projected, delta, dt_weight, bias, A, D, W, states, pattern, width,
          *_: Any, **__: Any) -> int:
        return scan_backward_flops(*sizes(x, dt_weight, A, pattern, width))
