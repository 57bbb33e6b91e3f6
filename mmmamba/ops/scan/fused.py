"""The fused scan: what the kernels of ``cpu`` and ``triton`` take and return, and their registration with PyTorch.

Both public scans reduce to it: a *head* is a direction in which all channels of a map are scanned, or a group of the
channels of a sequence. Nothing of size heads · tokens · channels is made. Registered with
``torch.library`` (schema, fake, autograd, FLOPs), it is an ordinary operator to ``torch.compile``, ``torch.export``,
CUDA graphs, activation checkpointing and ``FlopCounterMode``.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

import torch
from torch import Tensor

from mmmamba.ops.dispatch import refuse_second_derivative, refusing_forward_mode, register_flops
from mmmamba.ops.scan.orders import token_count


class ScanInputs(NamedTuple):
    """What a fused scan takes. State and accumulation are float32 whatever the inputs are.

    Attributes:
        x: (batch, pixels, groups · channels), float32, float16 or bfloat16; the pixels of a map in row-major order.
        projected: (batch, pixels, heads, R + 2 N), float32: dt (R), B (N) and C (N) of every pixel and head.
        A: (heads, channels, N), float32.
        directions: Names in :data:`mmmamba.ops.scan.orders.ORDERS`, as many as heads, with one group of channels; or
            ``('h',)``, in which every head scans its group of channels.
        width: Of the map; the number of pixels for a sequence, whose direction is ``'h'``.
        softplus: Whether step sizes go through softplus.
        delta: Step sizes shaped as x, in one of its dtypes, for ``('h',)``; None: they are ``dt_weight @ dt``.
        dt_weight: (heads, channels, R), float32; None with delta.
        bias: Added to the step sizes (heads, channels), float32; or None.
        D: Skip weights (heads, channels), float32; or None.
        W: Weights of the states in the output, y = sum over n of W C h, plus D x, (heads, channels, N), float32; None
            for ones. A constant C is a W with a C of ones; a constant B is one with a B of ones, and h / B for h.
    """

    x: Tensor
    projected: Tensor
    delta: Tensor | None
    dt_weight: Tensor | None
    bias: Tensor | None
    A: Tensor
    D: Tensor | None
    W: Tensor | None
    directions: Sequence[str]
    width: int
    softplus: bool


TENSORS = 8
"""So many fields of :class:`ScanInputs` are tensors, the first ones; the others are options."""
_FIELDS = (
    'Tensor x, Tensor projected, Tensor? delta, Tensor? dt_weight, Tensor? bias, Tensor A, Tensor? D, Tensor? W',
    'str[] directions, SymInt width, bool softplus',
)
_FORWARD_SCHEMA = f'({", ".join(_FIELDS)}, bool keep) -> (Tensor, Tensor, Tensor)'
_BACKWARD_SCHEMA = (
    f'(Tensor grad_y, Tensor? grad_last_state, {_FIELDS[0]}, Tensor states, {_FIELDS[1]}) '
    f'-> ({", ".join(["Tensor"] * TENSORS)})'
)

FusedScan = Callable[[ScanInputs], 'tuple[Tensor, Tensor]']


def register(
    name: str,
    forward: Callable[[ScanInputs, bool], tuple[Tensor, Tensor, Tensor]],
    backward: Callable[[ScanInputs, Tensor, Tensor, Tensor | None], tuple[Tensor, ...]],
    states_size: Callable[[ScanInputs], int | torch.SymInt],
) -> FusedScan:
    """Registers ``mmmamba::<name>`` and ``mmmamba::<name>_backward`` and returns the scan, a differentiable function.

    The scan takes :class:`ScanInputs` and returns y, shaped as x and of its dtype, the sum over the directions, and
    the states (batch, heads, channels, N) after the last steps, float32. There are no atomics: on one device, with one
    number of threads, every run gives the same.

    Args:
        name: Of the operator.
        forward: Takes the inputs, all contiguous, and whether a backward pass may follow; returns y, the last states,
            and the states that the backward pass needs, flat (empty if none follows).
        backward: Takes the inputs, the kept states, and the gradients of y and of the last states (or None); returns
            the gradients of the eight tensors, an empty tensor for one that is None.
        states_size: How many numbers the kept states are. They are flat, so that no dimension of one chunk makes an
            exported program hold for small maps only.
    """
    qualified, tags = f'mmmamba::{name}', (torch.Tag.pt2_compliant_tag,)
    # Not torch.library.custom_op, whose wrappers are several calls of Python for each call of the operator. As an
    # operator of PyTorch's own it is defined once in a process: a module that registers cannot be reloaded.
    torch.library.define(qualified, _FORWARD_SCHEMA, tags=tags)
    torch.library.define(f'{qualified}_backward', _BACKWARD_SCHEMA, tags=tags)
    operator, backward_operator = (getattr(torch.ops.mmmamba, name + suffix).default for suffix in ('', '_backward'))

    @torch.library.impl(qualified, 'default')
    @refusing_forward_mode
    def _(*arguments: Any) -> tuple[Tensor, ...]:
        *inputs, keep = arguments
        return forward(_dense(inputs[:TENSORS], inputs[TENSORS:]), keep)

    @torch.library.impl(f'{qualified}_backward', 'default')
    @refusing_forward_mode
    def _(grad_y: Tensor, grad_last_state: Tensor | None, *arguments: Any) -> tuple[Tensor, ...]:
        inputs = _dense(arguments[:TENSORS], arguments[TENSORS + 1:])
        grad_last_state = None if grad_last_state is None else grad_last_state.contiguous()
        return backward(inputs, arguments[TENSORS].contiguous(), grad_y.contiguous(), grad_last_state)

    @torch.library.register_fake(qualified)
    def _(*arguments: Any) -> tuple[Tensor, ...]:
        inputs, keep = ScanInputs(*arguments[:-1]), arguments[-1]
        x, A = inputs.x, inputs.A
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        return y, A.new_empty(x.shape[0], *A.shape), A.new_empty(states_size(inputs) if keep else 0)

    @torch.library.register_fake(f'{qualified}_backward')
    def _(grad_y: Tensor, grad_last_state: Tensor | None, *arguments: Any) -> tuple[Tensor, ...]:
        return tuple(
            grad_y.new_empty(0) if tensor is None else torch.empty_like(tensor, memory_format=torch.contiguous_format)
            for tensor in arguments[:TENSORS]
        )

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *arguments, keep = inputs
        ctx.save_for_backward(*arguments[:TENSORS], output[2])
        ctx.options, ctx.keep = arguments[TENSORS:], keep
        ctx.set_materialize_grads(False)

    def differentiate(ctx: Any, grad_y: Tensor | None, grad_last_state: Tensor | None, _: Any) -> tuple[Any, ...]:
        refuse_second_derivative()
        if not ctx.keep:
            raise RuntimeError('This scan was traced without gradients and kept no states for them; trace it with.')
        *tensors, states = ctx.saved_tensors
        grad_y = torch.zeros_like(tensors[0]) if grad_y is None else grad_y
        gradients = backward_operator(grad_y, grad_last_state, *tensors, states, *ctx.options)
        wanted = [None if tensor is None else gradient for tensor, gradient in zip(tensors, gradients)]
        return *wanted, None, None, None, None

    torch.library.register_autograd(qualified, differentiate, setup_context=setup_context)

    def flops(*shapes: Any, **_: Any) -> int:
        return scan_flops(*_sizes(ScanInputs(*shapes[:-1])))

    def backward_flops(grad_y: Any, grad_last_state: Any, *shapes: Any, **_: Any) -> int:
        return scan_backward_flops(*_sizes(ScanInputs(*shapes[:TENSORS], *shapes[TENSORS + 1:])))

    register_flops(getattr(torch.ops.mmmamba, name), flops)
    register_flops(getattr(torch.ops.mmmamba, f'{name}_backward'), backward_flops)

    def scan(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
        arguments: list[Any] = list(inputs)
        keep = False
        for i, tensor in enumerate(arguments[:TENSORS]):
            if tensor is not None:
                arguments[i] = tensor.contiguous()  # so that what the backward pass finds need not be copied again
                keep = keep or tensor.requires_grad
        y, last_state, _ = operator(*arguments, keep and torch.is_grad_enabled())
        return y, last_state

    return scan


def _dense(tensors: Sequence[Tensor | None], options: Sequence[Any]) -> ScanInputs:
    """Returns the inputs with contiguous tensors: compilers may choose other layouts."""
    dense: list[Any] = [None if tensor is None else tensor.contiguous() for tensor in tensors]
    return ScanInputs(*dense, *options)


def _sizes(shapes: Any) -> tuple[int, ...]:
    """Returns what :func:`scan_flops` takes, from :class:`ScanInputs` of shapes."""
    (batch, pixels, channels), dt_weight, states = shapes.x, shapes.dt_weight, shapes.A[2]
    tokens = sum(token_counts(shapes.directions, pixels, shapes.width))
    return batch, tokens, channels, states, 0 if dt_weight is None else dt_weight[2]


def token_counts(directions: Sequence[str], pixels: int, width: int) -> list[int]:
    """Returns how many tokens each direction visits in a map of so many pixels."""
    height = pixels // max(width, 1)
    return [token_count(direction, height, width) for direction in directions]


def scan_flops(batch: int, length: int, channels: int, states: int, rank: int = 0) -> int:
    """Returns the FLOPs of the recurrence and its skip connection, and of the projection of the step sizes if any.

    9·B·L·D·N + 2·B·L·D + 2·B·L·D·R: by the usual count the decay takes 3 (its argument and the exponential), the input
    2, the state 2, the output 2.

    Args:
        batch: B.
        length: L, tokens that each channel visits, in all directions.
        channels: D.
        states: N.
        rank: R, of a step-size projection inside the scan; 0 for none.
    """
    return batch * length * channels * (9 * states + 2 + 2 * rank)


def scan_backward_flops(batch: int, length: int, channels: int, states: int, rank: int = 0) -> int:
    """Returns the FLOPs of the gradients, the states' second computation included: see :func:`scan_flops`.

    21·B·L·D·N + 6·B·L·D + 6·B·L·D·R. For each state: the recurrence without its output 7; gradient of the state 2,
    handed to the step before 1; of C 2, of B 2, of the input 2; by way of the decay 1, then of the step size 2 and of
    A 2.
    """
    return batch * length * channels * (21 * states + 6 + 6 * rank)
