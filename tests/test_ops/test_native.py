"""The native library beside its numerics: threads, determinism, memory, and what happens where it is missing."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from scan_cases import assert_close, cast, results, selective_way, ss2d_inputs

from mmmamba.ops import info, ss2d_scan
from mmmamba.ops.cpu import native, scan
from mmmamba.ops.dispatch import Tolerance

ROOT = Path(__file__).parents[2]
needs_library = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))


def run(inputs):
    return results(lambda **named: ss2d_scan(**named, backend='cpu'), inputs)


@needs_library
def test_gradients_are_deterministic():
    inputs = cast(ss2d_inputs(2, 50, 9, 9, 16, 3), torch.float32)
    first = run(inputs)
    for _ in range(3):
        again = run(inputs)
        assert all(torch.equal(again[name], value) for name, value in first.items())


@needs_library
def test_threads_of_python_may_call_at_once():
    inputs = cast(ss2d_inputs(1, 20, 13, 11, 16, 3), torch.float32)
    expected = ss2d_scan(**inputs, backend='cpu')
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(ss2d_scan, **inputs, backend='cpu') for _ in range(32)]
    assert all(torch.equal(call.result(), expected) for call in calls)


@needs_library
def test_kept_states_are_linear_in_the_length_and_absent_without_gradients():
    sizes = {}

    def pack(tensor):
        sizes[tokens] = sizes.get(tokens, 0) + tensor.numel()
        return tensor

    for tokens in (32 * 32, 64 * 64):
        side = int(tokens**0.5)
        inputs = cast(ss2d_inputs(1, 16, side, side, 16, 1), torch.float32)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            ss2d_scan(**inputs, backend='cpu')
    assert 3.5 < sizes[64 * 64] / sizes[32 * 32] <= 4.1
    # x, four projections of 33 numbers, and the states of every CHUNK-th step.
    assert sizes[64 * 64] < 64 * 64 * (16 + 4 * 33 + 4 * 16 * 16 / scan.CHUNK + 4 + 16) * 1.1 + 10000


@pytest.mark.parametrize('way', [f'cpu-{isa}' for isa in native.ISAS])
def test_vector_functions_are_accurate(way):
    """With all factors one, the first output is softplus(delta), and the second its product with exp(-delta)."""
    scan, channels = selective_way(way), 4001
    values = torch.linspace(-15, 15, channels).view(1, channels, 1)
    ones = torch.ones(1, 1, 1, 1)
    softplus = scan(torch.ones_like(values), values, -torch.ones(channels, 1), ones, ones, delta_softplus=True)[0]
    expected = torch.nn.functional.softplus(values.double())
    assert ((softplus - expected) / expected).abs().max() < 1.5e-6

    delta = torch.cat([torch.ones_like(values), values.abs() / 15], dim=2)
    u = torch.tensor([1.0, 0.0]).expand_as(delta)
    ones = torch.ones(1, 1, 1, 2)
    decays = scan(u, delta, -torch.ones(channels, 1), ones, ones)[0][..., 1:]
    expected = torch.exp(-values.double().abs() / 15)
    assert ((decays - expected) / expected).abs().max() < 3e-7
    assert (decays[delta[..., 1:] == 0] == 1).all()


OPENMP = """
import runpy, sys, torch
def runtimes():
    with open('/proc/self/maps') as file:
        return {line.split()[-1] for line in file if 'gomp' in line or 'libomp' in line or 'iomp' in line}
before = runtimes()
native = runpy.run_path(sys.argv[1])['NATIVE']
print(native.reason, len(before), len(runtimes() - before))
"""


@needs_library
@pytest.mark.skipif(sys.platform != 'linux', reason='asks the system of Linux for loaded libraries')
def test_it_brings_no_second_openmp_runtime():
    """PyTorch alone is imported: other packages bring runtimes of their own."""
    result = subprocess.run([sys.executable, '-c', OPENMP, native.__file__], capture_output=True, text=True)
    assert result.stdout.split() == ['None', '1', '0'], result.stderr


@needs_library
def test_unknown_instruction_set_is_named():
    with pytest.raises(ValueError, match="lacks 'neon'; it has portable"):
        native.isa_index('neon')


@needs_library
def test_info_names_backends_and_instruction_sets():
    text = info.describe()
    assert 'available on cpu; takes float32, float16, bfloat16' in text
    assert f'native library: {", ".join(native.available_isas())}' in text


@pytest.fixture
def library_at(monkeypatch):
    """Makes the package look for its library at another place."""

    def look_at(library: Path) -> None:
        monkeypatch.setattr(native, 'LIBRARY', library)
        monkeypatch.setattr(native, 'BUILD_LOG', library.with_name('build_log.txt'))
        monkeypatch.setattr(native, 'NATIVE', native.load())

    return look_at


def test_without_library_the_next_backend_runs_and_the_reason_is_told(library_at, tmp_path):
    (tmp_path / 'build_log.txt').write_text('no compiler was found\n')
    library_at(tmp_path / 'libscan.so')
    inputs = {name: tensor.float() for name, tensor in ss2d_inputs(1, 4, 3, 3, 2, 1).items()}
    torch.testing.assert_close(ss2d_scan(**inputs), ss2d_scan(**inputs, backend='torch'))
    reason = 'The native library was not built: no compiler was found.'
    with pytest.raises(RuntimeError, match=f'cpu: {reason}'):
        ss2d_scan(**inputs, backend='cpu')
    assert f'cpu        not available: {reason}' in info.describe()
    assert 'native library:' not in info.describe()


def test_broken_library_is_a_reason_not_a_crash(library_at, tmp_path):
    (tmp_path / 'libscan.so').write_bytes(b'not a library')
    library_at(tmp_path / 'libscan.so')
    assert native.unavailable().startswith('The native library cannot be loaded: ')


@needs_library
def test_library_of_another_version_is_refused(monkeypatch, library_at):
    monkeypatch.setattr(native, 'ABI', native.ABI + 1)
    library_at(native.LIBRARY)
    assert 'another version of mmmamba' in native.unavailable() and 'install again' in native.unavailable()


@pytest.mark.skipif(shutil.which('cc') is None, reason='no C compiler')
def test_library_of_an_older_version_may_lack_functions(library_at, tmp_path):
    (tmp_path / 'old.c').write_text('long long scan_abi(void) { return 1; }')
    subprocess.run(['cc', '-shared', '-fPIC', '-o', 'libscan.so', 'old.c'], cwd=tmp_path, check=True)
    library_at(tmp_path / 'libscan.so')
    assert native.unavailable().startswith('The native library belongs to another version of mmmamba')


def build(tmp_path: Path, compiler: str | None) -> Path:
    """Runs the build step of an editable installation in a copy; returns the folder of the library."""
    folder = Path('mmmamba', 'ops', 'cpu')
    shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns('*.so', '*.txt', '__pycache__'))
    (tmp_path / 'setup.py').write_text(
        'import runpy, setuptools\n'
        f"native = runpy.run_path('{folder.as_posix()}/build_native.py')\n"
        "setuptools.setup(name='mmmamba', packages=['mmmamba.ops.cpu'], ext_modules=[native['NATIVE_EXTENSION']],\n"
        "                 cmdclass={'build_ext': native['BuildNative']})\n"
    )
    environment = {**os.environ, 'CFLAGS': '-O1'}
    if compiler is not None:
        environment['CC'] = compiler
    command = [sys.executable, 'setup.py', '-q', 'build_ext', '--inplace']
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    return tmp_path / folder


@pytest.mark.parametrize('compiler', ['/bin/false', '/no/such/compiler'])
def test_installs_without_compiler_and_says_why(tmp_path, compiler):
    folder = build(tmp_path, compiler)
    assert not (folder / 'libscan.so').exists()
    log = (folder / 'build_log.txt').read_text()
    assert compiler in log and len(log) < 200 and len(log.splitlines()) == 1


@pytest.mark.skipif(shutil.which('cc') is None, reason='no C compiler')
def test_builds_where_a_compiler_is_and_without_openmp(tmp_path, library_at):
    """A compiler that knows neither OpenMP nor vector units gives a portable library of one thread."""
    compiler = tmp_path / 'plain-cc'
    compiler.write_text('#!/bin/sh\ncase "$*" in *-fopenmp*|*-mavx*) exit 1;; esac\nexec cc "$@"\n')
    compiler.chmod(0o755)
    folder = build(tmp_path, str(compiler))
    assert not (folder / 'build_log.txt').exists()
    library_at(folder / 'libscan.so')
    assert native.available_isas() == ('portable',) and native.threads() == 1
    inputs = ss2d_inputs(1, 5, 4, 3, 2, 1)
    expected = results(lambda **named: ss2d_scan(**named, backend='reference'), cast(inputs, torch.float64))
    assert_close(run(cast(inputs, torch.float32)), expected, Tolerance(2e-6, 2e-5))
