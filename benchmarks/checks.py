"""Checks of a backend on the device at hand, as plain functions: they need no test framework.

A case passes or raises. The cases of a list are in order of importance, since a run may end before the last.
"""
from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Callable, NamedTuple

import torch
from torch import Tensor

from benchmarks.contenders import (
    Inputs,
    Scan,
    as_scan,
    incoming_gradient,
    relative_errors,
    require_agreement,
    scan_inputs,
    with_gradients,
)
from benchmarks.models import images
from benchmarks.networks import build_network
from benchmarks.shapes import ScanShape
from mmmamba.analysis.measure import captured
from mmmamba.deploy import fuse
from mmmamba.ops import selective_scan, ss2d_scan
from mmmamba.ops.dispatch import Backend

STEP_BY_STEP = 300
"""Tokens up to which the float64 recurrence goes step by step; longer scans are compared with the chunked one."""
FLOAT32_NETWORK = 1e-4
"""Relative error that a network in float32 may have on another device."""
HALF_NETWORK = 3e-2
"""In float16 or bfloat16: twice what bfloat16 has on the CPU."""
SAME = 1e-5
"""Relative error between two ways to run one function, which may choose other matrix products."""
HUGE_SIDE = 5800
"""Of a map that has more than 2^31 elements at 64 channels."""
HUGE_MEMORY = 100 * 2**30
DTYPES = (torch.float32, torch.float16, torch.bfloat16)

MIDDLE = ScanShape(40, 13, 21, 3)
AWKWARD = (
    # batch, scan
    (2, ScanShape(64, 24, 37, 2)),
    (1, ScanShape(1, 1, 1, 1, 1)),
    (2, ScanShape(5, 7, 3, 2, 4)),
    (1, ScanShape(16, 1, 9, 1)),
    (1, ScanShape(17, 9, 1, 3, 8)),
    (1, ScanShape(33, 6, 5, 4, 1)),
    (2, ScanShape(8, 5, 13, 1, 2)),
    (1, ScanShape(24, 4, 17, 2, 32)),
    (1, ScanShape(40, 7, 11, 17)),
    (1, ScanShape(96, 33, 32, 3)),
    (3, ScanShape(70, 17, 16, 36)),
    (0, ScanShape(4, 3, 3, 1, 2)),
)


WINDOWS = ('h', 'v_flip', 'w2', 'w7_flip')
"""Directions that the kernels look up, of different lengths."""


class Case(NamedTuple):
    """A check with a name for the report."""

    name: str
    run: Callable[[], object]


class Outcome(NamedTuple):
    """What became of a list of cases; ``left`` were not run for want of time."""

    passed: int
    failures: list[str]
    left: int


def run_cases(cases: Sequence[Case], seconds: float = math.inf) -> Outcome:
    """Runs the cases until the time is over. A failure of any kind is noted, and the next case runs."""
    end, passed = time.monotonic() + seconds, 0
    failures: list[str] = []
    for done, case in enumerate(cases):
        if time.monotonic() > end:
            return Outcome(passed, failures, len(cases) - done)
        try:
            case.run()
            passed += 1
        except Exception as error:
            failures.append(f'{case.name}: {type(error).__name__}: {error}')
    return Outcome(passed, failures, 0)


def agreement_cases(backend: Backend, device: torch.device) -> Iterator[Case]:
    """Yields ``ss2d_scan`` and all its gradients against float64: dtypes, patterns, states, awkward shapes."""
    for dtype in DTYPES:
        for pattern in ('cross', 'atrous', WINDOWS):
            yield _agreement(backend, device, 1, MIDDLE, dtype, pattern)
    for states in (1, 2, 4, 8, 32):
        yield _agreement(backend, device, 1, MIDDLE._replace(states=states), torch.float32, 'cross')
    for batch, shape in AWKWARD:
        for pattern in ('cross', 'atrous'):
            yield _agreement(backend, device, batch, shape, torch.float32, pattern)


def _agreement(
    backend: Backend,
    device: torch.device,
    batch: int,
    shape: ScanShape,
    dtype: torch.dtype,
    pattern: str | tuple[str, ...],
) -> Case:
    def run() -> None:
        poison(device)
        inputs = scan_inputs(shape, batch, device, dtype)
        got = with_gradients(partial(as_scan(backend), pattern=pattern), inputs)
        exact = 'reference' if shape.height * shape.width <= STEP_BY_STEP else 'torch'
        expected = with_gradients(partial(ss2d_scan, pattern=pattern, backend=exact), _doubled(inputs))
        require_agreement(backend, got, expected, dtype)

    return Case(f'{backend.name}, {pattern}, {dtype}, {batch} x {shape}, N {shape.states}, R {shape.rank}', run)


def sequence_cases(backend: Backend, device: torch.device) -> Iterator[Case]:
    """Yields ``selective_scan``, its last state and gradients against float64: dtypes, groups, lengths, inputs."""
    every = ('D', 'delta_bias')
    for dtype in DTYPES:
        yield _sequence(backend, device, 12, 130, dtype, every, True)
    yield _sequence(backend, device, 40, 130, torch.float32, every, True, groups=1)
    for present in ((), ('D', ), ('delta_bias', )):
        yield _sequence(backend, device, 6, 40, torch.float32, present, False)
    for length in (1, 65, 1000):
        yield _sequence(backend, device, 34, length, torch.float32, every, True)
    yield _sequence(backend, device, 4, 100_003, torch.float32, every, True)


def _sequence(
    backend: Backend, device: torch.device, channels: int, length: int, dtype: torch.dtype, present: Sequence[str],
    softplus: bool, groups: int = 2
) -> Case:
    def run() -> None:
        poison(device)
        inputs = _sequence_inputs(channels, groups, length, device, dtype, present)
        exact = 'reference' if length <= STEP_BY_STEP else 'torch'
        got = _sequence_results(backend.name, inputs, softplus)
        expected = _sequence_results(exact, _doubled(inputs), softplus)
        require_agreement(backend, got, expected, dtype)

    left_out = ', '.join({'D', 'delta_bias'} - set(present)) or 'nothing'
    what = f'{dtype}, {channels} x {length}, groups {groups}, without {left_out}'
    return Case(f'{backend.name}, selective_scan, {what}', run)


def _sequence_inputs(
    channels: int, groups: int, length: int, device: torch.device, dtype: torch.dtype, present: Sequence[str]
) -> dict[str, Tensor]:
    make = partial(torch.randn, device=device, generator=torch.Generator(device).manual_seed(0))
    inputs = {
        'u': make(2, channels, length).to(dtype),
        # Without softplus a step size may have any sign, and one below zero would let states grow without bound.
        'delta': (make(2, channels, length).abs() / 4).to(dtype),
        'A': -torch.exp(make(channels, 16) / 2),
        'B': make(2, groups, 16, length).to(dtype),
        'C': make(2, groups, 16, length).to(dtype),
        'D': make(channels),
        'delta_bias': make(channels).abs() / 4,
    }
    return {name: tensor for name, tensor in inputs.items() if name not in ('D', 'delta_bias') or name in present}


def _sequence_results(name: str, inputs: Inputs, softplus: bool) -> dict[str, Tensor]:
    leaves = {key: tensor.detach().requires_grad_() for key, tensor in inputs.items()}
    outputs = selective_scan(**leaves, delta_softplus=softplus, return_last_state=True, backend=name)
    gradients = torch.autograd.grad(outputs, list(leaves.values()), [incoming_gradient(o) for o in outputs])
    found = dict(zip(('y', 'last_state'), (output.detach() for output in outputs)))
    return {**found, **{f'grad_{key}': gradient for key, gradient in zip(leaves, gradients)}}


def integration_cases(backend: Backend, device: torch.device) -> Iterator[Case]:
    """Yields the scan as a part of PyTorch: determinism, autocast, compilation, CUDA graphs, long and huge maps."""
    shape = ScanShape(64, 40, 40, 2)
    inputs = scan_inputs(shape, 1, device, torch.float32)
    scan = as_scan(backend)
    yield Case(f'{backend.name}: deterministic', partial(_deterministic, scan, inputs))
    yield Case(f'{backend.name}: autocast', partial(_under_autocast, scan, inputs, device))
    yield Case(f'{backend.name}: torch.compile', partial(_compiled, scan, inputs, device))
    if device.type == 'cuda':
        yield Case(f'{backend.name}: CUDA graph, forward', partial(_replayed, _forward_of(scan), inputs))
        step = partial(with_gradients, scan, incoming=incoming_gradient(inputs['x']))
        yield Case(f'{backend.name}: CUDA graph, backward', partial(_replayed, step, inputs))
    yield _agreement(backend, device, 1, ScanShape(4, 320, 321, 1), torch.float32, 'cross')
    if device.type == 'cuda':
        torch.cuda.empty_cache()  # what the allocator keeps would not count as free
        if torch.cuda.mem_get_info(device)[0] > HUGE_MEMORY:
            yield Case(f'{backend.name}: more than 2^31 elements', partial(_huge, backend, device, HUGE_SIDE))


def network_cases(name: str, device: torch.device) -> Iterator[Case]:
    """Yields a network in float32, and fused in half the precision as it is timed, against the CPU's in float32."""
    half = torch.float16 if device.type == 'cuda' else torch.bfloat16  # older PyTorch: no convolution of float16
    yield Case(f'{name} as on the CPU', partial(_as_on_the_cpu, name, device, torch.float32, FLOAT32_NETWORK))
    yield Case(f'{name}, fused, {half}', partial(_as_on_the_cpu, name, device, half, HALF_NETWORK))


def _forward_of(scan: Scan) -> Callable[[Inputs], dict[str, Tensor]]:
    def run(inputs: Inputs) -> dict[str, Tensor]:
        with torch.no_grad():
            return {'y': scan(*inputs.values())}

    return run


def _require_equal(got: Inputs, expected: Inputs) -> None:
    for name, value in expected.items():
        assert torch.equal(got[name], value), f'{name} differs by up to {(got[name] - value).abs().max():.1e}'


def _require_close(got: Inputs, expected: Inputs) -> None:
    for name, error in relative_errors(got, _doubled(expected)).items():
        assert error <= SAME, f'{name} has a relative error of {error:.1e}, more than {SAME:.0e}'


def _deterministic(scan: Scan, inputs: Inputs) -> None:
    first = with_gradients(scan, inputs)
    for _ in range(3):
        _require_equal(with_gradients(scan, inputs), first)


def _under_autocast(scan: Scan, inputs: Inputs, device: torch.device) -> None:
    """Checks that the inputs' dtype decides, not autocast. The backward pass is outside, as PyTorch recommends."""

    def mixed(*tensors: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return scan(*tensors)

    _require_equal(with_gradients(mixed, inputs), with_gradients(scan, inputs))


def _compiled(scan: Scan, inputs: Inputs, device: torch.device) -> None:
    torch.compiler.reset()
    compiler = 'inductor' if device.type == 'cuda' else 'aot_eager'  # without the need of a C++ compiler
    compiled = torch.compile(lambda *tensors: scan(*tensors).tanh(), fullgraph=True, backend=compiler)
    got, expected = (with_gradients(f, inputs) for f in (compiled, lambda *tensors: scan(*tensors).tanh()))
    _require_close(got, expected)


def _replayed(run: Callable[[Inputs], dict[str, Tensor]], inputs: Inputs) -> None:
    """Checks that a graph that was captured on some values computes on others what the function itself does."""
    static = {name: tensor.clone() for name, tensor in inputs.items()}
    replay = captured(lambda: run(static))
    for tensor in static.values():
        tensor.mul_(0.5)
    _require_close(replay(), run(static))


def _huge(backend: Backend, device: torch.device, side: int) -> None:
    """Checks that the last corner of the map, with its gradient, is as it is alone: no state outlives a step here."""
    shape, corner, dtype = ScanShape(64, side, side, 1, 1), slice(-8, None), torch.float16
    inputs = scan_inputs(shape, 1, device, dtype)
    inputs['A_logs'].fill_(math.log(1e4))
    x, *parameters = inputs.values()

    def results(scan: Scan, x: Tensor, incoming: Tensor, parameters: list[Tensor]) -> dict[str, Tensor]:
        x = x.detach().requires_grad_()
        y = scan(x, *parameters)
        return {'y': y.detach(), 'grad_x': torch.autograd.grad(y, x, incoming)[0]}

    incoming = incoming_gradient(x)
    whole = results(as_scan(backend), x, incoming, parameters)
    got = {name: value[..., corner, corner] for name, value in whole.items()}
    expected = results(partial(ss2d_scan, backend='reference'), x[..., corner, corner].double(),
                       incoming[..., corner, corner].double(), [tensor.double() for tensor in parameters])
    require_agreement(backend, got, expected, dtype)


def _as_on_the_cpu(name: str, device: torch.device, dtype: torch.dtype, limit: float) -> None:
    torch.manual_seed(0)
    network, x = build_network(name).eval(), images(1, 64, torch.device('cpu'))
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = network(x)
        if dtype != torch.float32:
            network = fuse(network)
        got = network.to(device, dtype)(x.to(device, dtype))
    for index, (mine, value) in enumerate(zip(got, expected)):
        error = float((mine.cpu().float() - value).norm() / value.norm())
        # Written so that NaN fails.
        assert error <= limit, f'output {index} has a relative error of {error:.1e}'


def _doubled(inputs: Inputs) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in inputs.items()}


def poison(device: torch.device) -> None:
    """Leaves NaN in the memory that the CUDA allocator gives out next, so that what nobody writes is seen."""
    if device.type == 'cuda':
        blocks = [torch.full((size,), math.nan, device=device) for size in (2**26, *[2**17] * 32, *[2**10] * 32)]
        del blocks
