"""The fused scans as operators of PyTorch: compilation, export, FLOPs, checkpointing, autocast, fake tensors."""
from __future__ import annotations

from functools import partial
from typing import Callable

import pytest
import torch
from scan_cases import DIRECTIONS, PARAMETERS, assert_close, cast, results, selective_inputs, ss2d_inputs
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from mmmamba.ops import selective_scan, ss2d_scan
from mmmamba.ops.dispatch import TOLERANCES
from mmmamba.ops.scan.fused import scan_backward_flops, scan_flops
from mmmamba.ops.scan.orders import directions_of

pytestmark = pytest.mark.usefixtures('small_tiling')

FUSED = ['cpu', 'triton']
SCANS = {'cpu': torch.ops.mmmamba.native_scan, 'triton': torch.ops.mmmamba.triton_scan}


class Scan(nn.Module):
    """``ss2d_scan`` with parameters, as a layer has them."""

    def __init__(self, backend: str, pattern: str | tuple[str, ...] = 'cross') -> None:
        super().__init__()
        self.backend, self.pattern = backend, pattern
        for name, value in ss2d_inputs(1, 6, 4, 5, 2, 1, count=len(directions_of(pattern))).items():
            if name in PARAMETERS:
                setattr(self, name, nn.Parameter(value.float()))

    def forward(self, x: Tensor) -> Tensor:
        parameters = [getattr(self, name) for name in PARAMETERS]
        return ss2d_scan(x, *parameters, pattern=self.pattern, backend=self.backend).tanh()


def a_map(batch: int = 1, height: int = 3, width: int = 4, seed: int = 3) -> Tensor:
    return torch.randn(batch, 6, height, width, generator=torch.Generator().manual_seed(seed))


def fused_arguments(
    pattern: str, given_delta: bool, weighted: bool = False, batch: int = 2, height: int = 3, width: int = 5
) -> tuple:
    directions = DIRECTIONS[pattern]
    heads, groups, rank = (3, 3, 0) if pattern == 'sequence' else (len(directions), 1, 0 if given_delta else 2)
    pixels, make = height * width, torch.Generator().manual_seed(0)
    x, delta = (torch.randn(batch, pixels, groups * 4, generator=make, requires_grad=True) for _ in range(2))
    projected = torch.randn(batch, pixels, heads, rank + 4, generator=make, requires_grad=True)
    dt_weight = None if given_delta else torch.randn(heads, 4, rank, generator=make, requires_grad=True)
    bias, D = (torch.randn(heads, 4, generator=make, requires_grad=True) for _ in range(2))
    A = (-torch.rand(heads, 4, 2, generator=make)).requires_grad_()
    W = torch.randn(A.shape, generator=make, requires_grad=True) if weighted else None
    width = pixels if pattern == 'sequence' else width
    return x, projected, delta if given_delta else None, dt_weight, bias, A, D, W, directions, width, True


@pytest.mark.parametrize('keep', [True, False])
@pytest.mark.parametrize('pattern, given_delta, weighted', [
    ('sequence', True, True), ('sequence', True, False), ('cross', False, False), ('atrous', False, False),
    ('two', False, False),
])
@pytest.mark.parametrize('backend', FUSED)
def test_registration_is_sound(backend, pattern, given_delta, weighted, keep, requires):
    """Schema, fake outputs and autograd, as PyTorch's own check sees them."""
    requires(backend)
    # Triton's interpreter takes its time: a chunk there, or two of the plain sequence.
    plain = pattern == 'sequence' and not weighted
    size = {'batch': 1, 'height': 1 if plain else 2, 'width': 9 if plain else 3} if backend == 'triton' else {}
    arguments = fused_arguments(pattern, given_delta, weighted, **size)
    if not keep:
        arguments = tuple(a.detach() if isinstance(a, Tensor) else a for a in arguments)
    torch.library.opcheck(SCANS[backend].default, (*arguments, keep))


@pytest.mark.parametrize('backend', [
    *FUSED,
    pytest.param('torch', marks=pytest.mark.needs_torch('2.11', 'compiles the torch backend')),
])
def test_compiles_whole(backend, requires):
    requires(backend)
    scan, x = Scan(backend), a_map().requires_grad_()
    compiled = torch.compile(scan, fullgraph=True, backend='aot_eager')
    inputs = [x, *scan.parameters()]
    y, expected = compiled(x), scan(x)
    torch.testing.assert_close(y, expected)
    for got, value in zip(torch.autograd.grad(y.sum(), inputs), torch.autograd.grad(expected.sum(), inputs)):
        torch.testing.assert_close(got, value)


@pytest.mark.parametrize('backend', FUSED)
def test_selective_scan_compiles_whole(backend, requires):
    requires(backend)
    inputs = cast(selective_inputs(1, 6, 9, 2, 3), torch.float32)

    def scan() -> Tensor:
        return selective_scan(**inputs, delta_softplus=True, backend=backend)

    torch.testing.assert_close(torch.compile(scan, fullgraph=True, backend='aot_eager')(), scan())


@pytest.mark.parametrize('backend', FUSED)
def test_one_group_with_gradients(backend, requires):
    """As Mamba has it: one head, so that slices of its parameters' gradients are whole tensors."""
    requires(backend)
    inputs = selective_inputs(1, 3, 9, 1, 1)

    def scan(name: str) -> Callable[..., tuple[Tensor, ...]]:
        return partial(selective_scan, delta_softplus=True, return_last_state=True, backend=name)

    expected = results(scan('reference'), cast(inputs, torch.float64))
    assert_close(results(scan(backend), cast(inputs, torch.float32)), expected, TOLERANCES[torch.float32], floor=0.1)


@pytest.mark.needs_torch('2.11', 'exports a scan')
def test_a_scan_traced_without_gradients_refuses_them():
    scan = Scan('cpu')
    with torch.no_grad():
        exported = torch.export.export(scan, (a_map(),)).module()
    with pytest.raises(RuntimeError, match='traced without gradients'):
        exported(a_map()).sum().backward()


def test_operators_take_any_layout():
    *tensors, directions, width, softplus = fused_arguments('cross', given_delta=False)
    strided = tensors[0].transpose(1, 2).contiguous().transpose(1, 2)
    operator = torch.ops.mmmamba.native_scan
    arguments = (*tensors[1:], directions, width, softplus, False)
    torch.testing.assert_close(operator(strided, *arguments)[0], operator(tensors[0], *arguments)[0])


@pytest.mark.needs_torch('2.11', 'exports a scan')
@pytest.mark.parametrize('pattern', ['cross', 'atrous', DIRECTIONS['two']])
@pytest.mark.parametrize('backend', FUSED)
def test_exports_with_any_batch_and_size(backend, pattern, requires):
    requires(backend)
    scan = Scan(backend, pattern)
    sizes = {0: Dim('batch', max=64), 2: Dim('height', max=4096), 3: Dim('width', max=4096)}
    exported = torch.export.export(scan, (a_map(2),), dynamic_shapes=(sizes,)).module()
    for shape in ((2, 3, 4), (3, 5, 2), (1, 2, 8)):
        torch.testing.assert_close(exported(a_map(*shape)), scan(a_map(*shape)))


@pytest.mark.needs_torch('2.11', 'tells whether it exports')
@pytest.mark.parametrize('change, problem', [
    (dict(return_last_state=True), 'selective_scan: export has no last state'),
    (dict(B=torch.ones(4, 3)), 'a scan with a constant B or C cannot be exported'),
])
def test_the_operators_for_exporters_refuse_what_they_lack(change, problem):
    class Sequence(nn.Module):
        def forward(self, u: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            return selective_scan(u, **inputs, backend='export')

    inputs = {**cast(selective_inputs(1, 4, 9, 3, 1), torch.float32), 'D': None, **change}
    u = inputs.pop('u')
    with pytest.raises((RuntimeError, ValueError), match=problem):
        torch.export.export(Sequence(), (u,))


# In all directions.
@pytest.mark.parametrize('pattern, tokens', [
    ('cross', 4 * 15), ('atrous', 4 * 2 * 3), (DIRECTIONS['two'], 15 + 4 * 6),
])
@pytest.mark.parametrize('backend', FUSED)
def test_flops_are_counted(backend, pattern, tokens, requires):
    requires(backend)
    scan, x = Scan(backend, pattern), a_map(2, 3, 5).requires_grad_()
    with FlopCounterMode(display=False) as counter:
        scan(x).sum().backward()
    counts = counter.get_flop_counts()['Global']
    operator, backward = SCANS[backend], getattr(torch.ops.mmmamba, SCANS[backend].__name__ + '_backward')
    assert counts[operator] == scan_flops(2, tokens, 6, 2, rank=1) == 2 * tokens * 6 * (9 * 2 + 2 + 2)
    assert counts[backward] == scan_backward_flops(2, tokens, 6, 2, rank=1) == 2 * tokens * 6 * (21 * 2 + 6 + 6)


@pytest.mark.parametrize('reentrant', [True, False])
@pytest.mark.parametrize('backend', FUSED)
def test_checkpointing_leaves_gradients_unchanged(backend, reentrant, requires):
    requires(backend)
    scan, x = Scan(backend), a_map().requires_grad_()
    inputs = [x, *scan.parameters()]
    scan(x).sum().backward()
    expected = [tensor.grad.clone() for tensor in inputs]
    for tensor in inputs:
        tensor.grad = None
    checkpoint(scan, x, use_reentrant=reentrant).sum().backward()
    assert all(torch.equal(tensor.grad, value) for tensor, value in zip(inputs, expected))


@pytest.mark.parametrize('backend', FUSED)
def test_shapes_are_known_without_computing(backend, requires):
    requires(backend)
    scan = Scan(backend)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        y = scan(mode.from_tensor(a_map(3, 8, 2)))
    assert y.shape == (3, 6, 8, 2) and y.is_contiguous(memory_format=torch.channels_last)


def test_runs_on_meta_tensors():
    inputs = {name: tensor.float().to('meta') for name, tensor in ss2d_inputs(1, 4, 3, 5, 2, 1).items()}
    assert ss2d_scan(**inputs, backend='torch').shape == (1, 4, 3, 5)


@pytest.mark.parametrize('backend', FUSED)
def test_states_are_kept_only_where_gradients_are_needed(backend, requires, monkeypatch):
    requires(backend)
    kept = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function is SCANS[backend].default:
                kept.append(result[2].numel() > 0)
            return result

    scan, x = Scan(backend), a_map()
    with Watch():
        scan(x)
        with torch.no_grad():
            scan(x)
        scan.requires_grad_(False)(x)
    assert kept == [True, False, False]
