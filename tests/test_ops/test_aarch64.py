"""The kernels compiled for aarch64 and run in an emulator: scans and blocks against float64, forward and backward.

The library is that of the wheel in ``dist`` if it was made of these sources, else one that is compiled here.
"""
from __future__ import annotations

import shutil
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from other_machine import OtherMachine, compile_for
from scan_cases import DIRECTIONS, assert_close, cast, results, selective_inputs, ss2d_inputs
from torch import Tensor

from mmmamba.deploy.fused_ops import inverted_bottleneck, pointwise_conv
from mmmamba.deploy.fused_passes import fused_pass
from mmmamba.ops import selective_scan, ss2d_scan
from mmmamba.ops.cpu import blocks, native
from mmmamba.ops.cpu.blocks import BottleneckInputs, PointwiseInputs
from mmmamba.ops.cpu.build_native import FLAGS, FOLDER, NATIVE_EXTENSION, instruction_sets
from mmmamba.ops.cpu.passes import GatedDepthwiseInputs, NormGateInputs
from mmmamba.ops.dispatch import TOLERANCES

ROOT = Path(__file__).parents[2]
COMPILER, EMULATOR, SYSTEM = 'aarch64-linux-gnu-gcc', 'qemu-aarch64', '/usr/aarch64-linux-gnu'
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

pytestmark = pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
    reason=f'needs {COMPILER} and {EMULATOR} (apt-get install gcc-aarch64-linux-gnu qemu-user)')


def library_of_wheel(folder: Path) -> Path | None:
    """The library of a wheel in ``dist`` with the same C as here."""
    for wheel in (ROOT / 'dist').glob('*aarch64.whl'):
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            sources = [path for kind in ('*.c', '*.h') for path in (ROOT / FOLDER).glob(kind)]
            if all(f'{FOLDER}/{path.name}' in names and archive.read(f'{FOLDER}/{path.name}') == path.read_bytes()
                   for path in sources):
                return Path(archive.extract(f'{FOLDER}/libscan.so', folder))
    return None


@pytest.fixture(scope='module')
def command(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp('aarch64')
    library = library_of_wheel(folder)
    if library is None:
        # -O1 takes half as long.
        flags = [*FLAGS, '-O1', '-fopenmp', '-shared', '-DSCAN_ISA=portable', f'-I{ROOT / FOLDER}']
        library = compile_for(COMPILER, flags, [ROOT / name for name in NATIVE_EXTENSION.sources],
                              folder / 'libscan.so')
    program = compile_for(COMPILER, ['-fopenmp', '-Wl,--no-as-needed'],
                          [Path(__file__).with_name('other_machine.c')], folder / 'other_machine')
    return [EMULATOR, '-L', SYSTEM, str(program), str(library)]


@pytest.fixture
def machine(command, monkeypatch) -> OtherMachine:
    machine = OtherMachine(command)
    machine.install(monkeypatch)
    return machine


def test_it_is_built_with_what_the_target_has():
    assert instruction_sets([COMPILER]) == ('portable',)


def test_versions_and_threads(machine):
    assert machine.scan_abi() == native.ABI and machine.blocks_abi() == blocks.ABI
    assert machine.scan_has_threads() == 1


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
# Fewer channels than lanes, an odd number of states, several segments.
@pytest.mark.parametrize('shape', [(2, 3, 4, 5, 3, 1), (1, 9, 13, 11, 4, 2)], ids=str)
def test_scan_of_a_map(machine, shape, dtype):
    inputs = cast(ss2d_inputs(*shape), dtype)
    expected = results(partial(ss2d_scan, backend='reference'), cast(inputs, torch.float64))
    assert_close(results(partial(ss2d_scan, backend='cpu'), inputs), expected, TOLERANCES[dtype])
    assert machine.calls == ['scan_forward', 'scan_backward']


def test_scan_of_windows(machine):
    inputs = cast(ss2d_inputs(1, 6, 9, 8, 2, 1), torch.float32)
    directions = partial(ss2d_scan, pattern=DIRECTIONS['windows'])
    expected = results(partial(directions, backend='reference'), cast(inputs, torch.float64))
    assert_close(results(partial(directions, backend='cpu'), inputs), expected, TOLERANCES[torch.float32])


def test_scan_of_a_sequence(machine):
    inputs = cast(selective_inputs(2, 6, 150, 3, 2), torch.float32)
    scan = partial(selective_scan, return_last_state=True, delta_softplus=True)
    expected = results(partial(scan, backend='reference'), cast(inputs, torch.float64))
    assert_close(results(partial(scan, backend='cpu'), inputs), expected, TOLERANCES[torch.float32])


def maps(*size: int) -> Tensor:
    return torch.randn(size).contiguous(memory_format=torch.channels_last)


def blocks_inputs() -> dict[str, tuple]:
    """An operation on a block's inputs, in every part that it can have; odd channels, more than a vector has lanes."""
    torch.manual_seed(0)
    batch, channels, hidden, height, width = 1, 7, 13, 5, 3
    x, gate = maps(batch, channels, height, width), maps(batch, channels, height, width)
    norm = dict(norm_weight=torch.randn(channels), norm_bias=torch.randn(channels))
    return {
        'pointwise': (pointwise_conv, PointwiseInputs(
            x, torch.randn(hidden, channels, 1, 1) / 3, torch.randn(hidden), **norm, gate=gate, activation='silu',
            residual=maps(batch, hidden, height, width))),
        'inverted_bottleneck': (inverted_bottleneck, BottleneckInputs(
            x, torch.randn(2 * hidden, channels, 1, 1) / 3, torch.randn(2 * hidden), torch.randn(hidden, 1, 3, 3) / 3,
            torch.randn(hidden), **norm, skip=True, activation='gelu',
            reduce_weight=torch.randn(channels, hidden, 1, 1) / 4, reduce_bias=torch.randn(channels), residual=gate)),
        'norm_gate': (fused_pass, NormGateInputs(
            x, torch.randn(channels), torch.randn(channels), gate, 1e-3, 'silu', torch.float32)),
        'gated_depthwise': (fused_pass, GatedDepthwiseInputs(
            maps(batch, 2 * channels, height, width), torch.randn(channels, 1, 3, 3), torch.randn(channels), True,
            'gelu')),
    }


def in_dtypes(inputs: tuple, short: torch.dtype, long: torch.dtype, leaves: bool) -> tuple:
    """Maps and weights of 1x1 convolutions in one dtype, all else in the other."""
    def one(value):
        if not isinstance(value, Tensor):
            return short if isinstance(value, torch.dtype) else value
        dtype = short if value.dim() == 4 and value.shape[1] > 1 else long
        return value.detach().to(dtype).requires_grad_(leaves)

    return inputs._replace(**{name: one(value) for name, value in inputs._asdict().items()})


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('name', ['pointwise', 'inverted_bottleneck', 'norm_gate', 'gated_depthwise'])
def test_blocks(machine, name, dtype):
    op, inputs = blocks_inputs()[name]
    trains = op is fused_pass
    given = in_dtypes(inputs, dtype, torch.float32, trains)
    exact = in_dtypes(given, torch.float64, torch.float64, trains)
    gradient, results = None, []
    for values, backend in ((exact, 'torch'), (given, 'cpu')):
        y = op(values, backend=backend)
        results.append({'y': y.detach()})
        if trains:
            gradient = torch.randn_like(y).to(dtype) if gradient is None else gradient
            y.backward(gradient.to(y.dtype))
            results[-1].update((f'grad_{field}', value.grad) for field, value in values._asdict().items()
                               if isinstance(value, Tensor))
    assert_close(results[1], results[0], TOLERANCES[dtype])
    assert machine.calls == [f'blocks_{name}', *([f'blocks_{name}_backward'] if trains else [])]
