"""The scans of exported files in ONNX Runtime and OpenVINO, on the project's kernels."""
from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from mmmamba.deploy.export import runtime
from mmmamba.deploy.native import build, libraries
from mmmamba.errors import InputError
from mmmamba.ops.scan import exported

ROOT = Path(__file__).parents[2]
CROSS, ATROUS = ('h', 'v', 'h_flip', 'v_flip'), ('a00', 'a10', 'a01', 'a11')
RANKS = {
    'SS2DScan': {'x': 3, 'projected': 4, 'dt_weight': 3, 'bias': 2, 'A': 3, 'D': 2, 'orders': 2, 'places': 2},
    'SelectiveScan': {'x': 3, 'projected': 3, 'delta': 3, 'A': 2, 'D': 1},
}
# Directions, batch, height, width, channels, rank, states.
MAPS = {
    'cross': (CROSS, 1, 5, 8, 16, 1, 16),
    'batch': (CROSS, 2, 7, 3, 37, 3, 5),
    'atrous': (ATROUS, 2, 5, 7, 8, 2, 4),
    'even': (ATROUS, 1, 6, 4, 33, 1, 1),
    'windows': (('w2', 'w7_flip'), 2, 9, 5, 20, 2, 3),
    'one': (('v_flip',), 1, 6, 5, 9, 1, 8),
    'partial': (('a00', 'h'), 1, 5, 3, 16, 1, 2),  # directions that overlap and do not cover the map
    'pixel': (CROSS, 1, 1, 1, 4, 2, 3),
    'padded': (ATROUS, 2, 1, 1, 3, 1, 2),  # three directions without any pixel
    'long': (('h', 'v_flip'), 1, 41, 33, 24, 2, 16),  # several segments, where threads are known
}
# Batch, tokens, channels, states.
SEQUENCES = {'token': (1, 1, 1, 1), 'batch': (2, 37, 19, 4), 'long': (1, 700, 8, 16)}


def scan_model(op: str, **attributes: int) -> bytes:
    """An ONNX file of one node whose inputs are the model's, of any size."""
    onnx = pytest.importorskip('onnx')
    kinds = {name: onnx.TensorProto.INT64 if name in ('orders', 'places') else onnx.TensorProto.FLOAT
             for name in RANKS[op]}
    inputs = [onnx.helper.make_tensor_value_info(name, kinds[name], [f'{name}{axis}' for axis in range(rank)])
              for name, rank in RANKS[op].items()]
    node = onnx.helper.make_node(op, list(RANKS[op]), ['y'], domain='mmmamba', **attributes)
    y = onnx.helper.make_tensor_value_info('y', onnx.TensorProto.FLOAT, None)
    opsets = [onnx.helper.make_opsetid('', 18), onnx.helper.make_opsetid('mmmamba', 1)]
    return onnx.helper.make_model(onnx.helper.make_graph([node], 'scan', inputs, [y]), opset_imports=opsets,
                                  ir_version=10).SerializeToString()


def onnxruntime_library() -> str:
    path = runtime.find_library('libmmmamba_onnxruntime.so')
    if path is None:
        pytest.skip('The library for ONNX Runtime was not built.')
    return str(path)


def openvino_library() -> str:
    library = libraries.openvino_library()
    if library.path is None:
        pytest.skip(library.reason)
    return str(library.path)


def onnxruntime_session(op: str, threads: int = 1, known: object = None, **attributes: int):
    """A session of ONNX Runtime; ``known`` tells the library how many threads there are."""
    onnxruntime = pytest.importorskip('onnxruntime')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    if known is not None:
        options.add_session_config_entry('mmmamba.threads', str(known))
    options.register_custom_ops_library(onnxruntime_library())
    return onnxruntime.InferenceSession(scan_model(op, **attributes), options, providers=['CPUExecutionProvider'])


def with_onnxruntime(op: str, threads: int = 1, known: object = None, **attributes: int):
    session = onnxruntime_session(op, threads, known, **attributes)
    return lambda feed: session.run(None, feed)[0]


def openvino_core():
    pytest.importorskip('openvino')
    return runtime.openvino_core(Path(openvino_library()))


def compiled(core, model, threads: int):
    settings = {'INFERENCE_NUM_THREADS': threads, 'INFERENCE_PRECISION_HINT': 'f32'}
    model = core.compile_model(model, 'CPU', settings)

    def call(feed):
        request = model.create_infer_request()  # its own: threads may call
        return request.infer(feed)[0].copy()

    return call


def with_openvino(op: str, threads: int = 1, **attributes: int):
    core = openvino_core()
    return compiled(core, core.read_model(scan_model(op, **attributes), b''), threads)


RUNTIMES = pytest.mark.parametrize('runtime', [with_onnxruntime, with_openvino], ids=['onnxruntime', 'openvino'])


def map_inputs(directions, batch: int, height: int, width: int, channels: int, rank: int, states: int):
    torch.manual_seed(0)
    heads, pixels = len(directions), height * width
    orders, places = exported.order_tables(directions, height, width, torch.device('cpu'))
    return dict(zip(RANKS['SS2DScan'], (
        torch.randn(batch, pixels, channels), torch.randn(batch, pixels, heads, rank + 2 * states),
        torch.randn(heads, channels, rank), torch.randn(heads, channels), -4 * torch.rand(heads, channels, states),
        torch.randn(heads, channels), orders, places)))


def sequence_inputs(batch: int, tokens: int, channels: int, states: int):
    torch.manual_seed(0)
    return dict(zip(RANKS['SelectiveScan'], (
        torch.randn(batch, tokens, channels), torch.randn(batch, tokens, 2 * states),
        torch.rand(batch, tokens, channels), -4 * torch.rand(channels, states), torch.randn(channels))))


def check(call, definition, inputs) -> None:
    """Compares a runtime with the definition, in float32 and in float64."""
    y = torch.from_numpy(call({name: tensor.numpy() for name, tensor in inputs.items()}))
    double = [tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs.values()]
    exact = definition(*double)
    torch.testing.assert_close(y, definition(*inputs.values()), rtol=1e-4, atol=1e-5 * exact.abs().max().item())
    assert (y - exact).abs().max() <= 3e-6 * exact.abs().max()


@RUNTIMES
@pytest.mark.parametrize('case', MAPS)
def test_maps(runtime, case):
    for threads in (1, 2):
        check(runtime('SS2DScan', threads), exported.exported_ss2d_scan, map_inputs(*MAPS[case]))


@RUNTIMES
@pytest.mark.parametrize('case', SEQUENCES)
def test_sequences(runtime, case):
    for threads in (1, 2):
        check(runtime('SelectiveScan', threads), exported.exported_selective_scan, sequence_inputs(*SEQUENCES[case]))


@pytest.mark.parametrize('known', [1, 2, 5])
@pytest.mark.parametrize('case', MAPS)
def test_onnxruntime_with_a_known_number_of_threads(known, case):
    check(with_onnxruntime('SS2DScan', 2, known), exported.exported_ss2d_scan, map_inputs(*MAPS[case]))
    call = with_onnxruntime('SelectiveScan', 2, known)
    check(call, exported.exported_selective_scan, sequence_inputs(*SEQUENCES['long']))


def test_empty_maps_and_batches():
    call = with_onnxruntime('SS2DScan')
    for sizes in ((0, 2, 3), (1, 2, 0)):
        feed = {name: tensor.numpy() for name, tensor in map_inputs(CROSS, *sizes, 8, 1, 4).items()}
        assert call(feed).shape == feed['x'].shape


@RUNTIMES
def test_every_run_uses_its_own_orders(runtime):
    call = runtime('SS2DScan')
    for directions in (('h', 'v'), ('v_flip', 'h'), ('h', 'v')):
        check(call, exported.exported_ss2d_scan, map_inputs(directions, 1, 4, 6, 8, 1, 4))


def test_padded_steps_in_the_middle_of_an_order_count():
    inputs = map_inputs(('h',), 1, 2, 3, 8, 1, 4)
    inputs['orders'] = torch.tensor([[6, 0, 6, 6, 3, 1, 6, 2, 6]])
    inputs['places'] = torch.tensor([[1, 5, 7, 4, 9, 9]])
    check(with_onnxruntime('SS2DScan'), exported.exported_ss2d_scan, inputs)
    inputs['places'][0, 4] = 8  # a pixel that no step visits, at a step that visits another
    with pytest.raises(Exception, match='places has step 8 for pixel 4 in direction 0, and orders not'):
        check(with_onnxruntime('SS2DScan'), exported.exported_ss2d_scan, inputs)


BAD = {
    'negative': ('orders', lambda a: np.where(a == 3, -1, a), 'orders has -1 in direction 0, but there are 20 pixels'),
    'beyond': ('orders', lambda a: np.where(a == 3, 21, a), 'orders has 21 in direction 0, but there are 20 pixels'),
    'huge': ('orders', lambda a: np.where(a == 3, 2**32, a), '.*orders '),  # an int32 of OpenVINO's, 0
    'twice': ('orders', lambda a: np.where(a == 3, 4, a), 'direction 0 of orders visits pixel 4 twice'),
    'directions': ('orders', lambda a: a[:3], r'orders has the shape \(3, 20\), not \(K = 4, T\)'),
    'places': ('places', lambda a: a[:, :9], r'places has the shape \(4, 9\), not \(K = 4, P = 20\)'),
    'place of another': ('places', lambda a: a[::-1].copy(), 'places has step 19 for pixel 0 in direction 0, and or'),
    'place beyond': ('places', lambda a: np.where(a == 3, 21, a), 'places has step 21 for pixel 3 in direction 0'),
    'place below': ('places', lambda a: np.where(a == 3, -1, a), 'places has step -1 for pixel 3 in direction 0'),
    'batch': ('projected', lambda a: a[[0, 0]],
              r'projected has the shape \(2, 20, 4, 9\), not \(B = 1, P = 20, K, R \+ 2 N\)'),
    'columns': ('projected', lambda a: a[..., :5],
                r'projected has the shape \(1, 20, 4, 5\), not \(B = 1, P = 20, K = 4, R \+ 2 N = 9\)'),
    'bias': ('bias', lambda a: a[:, :5], r'bias has the shape \(4, 5\), not \(K = 4, D = 8\)'),
}


@RUNTIMES
@pytest.mark.parametrize('case', BAD)
def test_bad_inputs_are_one_line(runtime, case):
    call = runtime('SS2DScan', 2)
    feed = {name: tensor.numpy() for name, tensor in map_inputs(CROSS, 1, 5, 4, 8, 1, 4).items()}
    name, change, message = BAD[case]
    with pytest.raises(Exception, match=f'SS2DScan: {message}') as caught:
        call({**feed, name: change(feed[name])})
    assert len([line for line in str(caught.value).splitlines() if 'SS2DScan: ' in line]) == 1
    assert call(feed).shape == (1, 20, 8)  # and the next run is fine


def test_openvino_on_one_thread_writes_the_line_and_nan(capfd):
    """It would lose an exception there, and return what the run before left."""
    call = with_openvino('SS2DScan', 1)
    feed = {name: tensor.numpy() for name, tensor in map_inputs(CROSS, 1, 5, 4, 8, 1, 4).items()}
    assert np.isnan(call({**feed, 'orders': np.zeros_like(feed['orders'])})).all()
    assert capfd.readouterr().err == 'SS2DScan: direction 0 of orders visits pixel 0 twice.\n'
    assert np.isfinite(call(feed)).all()


@RUNTIMES
def test_a_wrong_sequence_is_one_line(runtime):
    call = runtime('SelectiveScan', 2)
    feed = {name: tensor.numpy() for name, tensor in sequence_inputs(1, 6, 8, 4).items()}
    with pytest.raises(Exception, match=r'projected has the shape \(1, 6, 7\), not \(B = 1, P = 6, 2 N = 8\)'):
        call({**feed, 'projected': feed['projected'][..., :7]})


@RUNTIMES
def test_another_version_of_an_operator_is_refused(runtime):
    runtime('SS2DScan', version=1)
    with pytest.raises(Exception, match='the file wants version 2 of the operator, but the library has version 1'):
        runtime('SS2DScan', version=2)


@RUNTIMES
def test_sessions_and_threads_run_at_once(runtime):
    sessions = [runtime('SS2DScan', 2) for _ in range(2)]
    feeds = [{name: tensor.numpy() for name, tensor in map_inputs(directions, 1, 13, 11, 24, 2, 8).items()}
             for directions in (CROSS, ATROUS, CROSS[::-1])]
    expected = [sessions[0](feed) for feed in feeds]
    with ThreadPoolExecutor(4) as pool:
        calls = [(i % 3, pool.submit(sessions[i % 2], feeds[i % 3])) for i in range(60)]
    assert all(np.array_equal(call.result(), expected[i]) for i, call in calls)


def test_onnxruntime_prefers_the_library_to_a_function_of_the_file():
    onnx = pytest.importorskip('onnx')
    onnxruntime = pytest.importorskip('onnxruntime')
    model = onnx.load_from_string(scan_model('SS2DScan'))
    body = [onnx.helper.make_node('Identity', ['x'], ['y'])]
    model.functions.append(onnx.helper.make_function('mmmamba', 'SS2DScan', list(RANKS['SS2DScan']), ['y'], body,
                                                     [onnx.helper.make_opsetid('', 18)]))
    inputs = map_inputs(*MAPS['batch'])
    feed = {name: tensor.numpy() for name, tensor in inputs.items()}
    alone = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    assert np.array_equal(alone.run(None, feed)[0], feed['x'])
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_library())
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=['CPUExecutionProvider'])
    check(lambda feed: session.run(None, feed)[0], exported.exported_ss2d_scan, inputs)


def test_onnxruntime_knows_the_shape_of_y():
    output, x = onnxruntime_session('SS2DScan').get_outputs()[0], onnxruntime_session('SS2DScan').get_inputs()[0]
    assert output.shape == x.shape


@pytest.mark.parametrize('known', ['0', '-1', 'two', '3 ', '99999'])
def test_threads_must_be_a_number(known):
    with pytest.raises(Exception, match='mmmamba.threads must be a number from 1 to 4096'):
        with_onnxruntime('SS2DScan', known=known)


def test_openvino_reads_its_own_files(tmp_path):
    core = openvino_core()
    sys.modules['openvino'].save_model(core.read_model(scan_model('SS2DScan'), b''), tmp_path / 'scan.xml')
    call = compiled(core, core.read_model(tmp_path / 'scan.xml'), 2)
    check(call, exported.exported_ss2d_scan, map_inputs(*MAPS['batch']))


def test_an_older_onnxruntime_is_refused():
    """Through a runtime of which only the version and the first function of its API are there."""
    library = ctypes.CDLL(onnxruntime_library())
    create_status = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
    get_api, get_version = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32), ctypes.CFUNCTYPE(ctypes.c_void_p)
    said, release = [], ctypes.create_string_buffer(b'1.16.3')
    create = create_status(lambda code, message: said.append((code, message.decode())) or 1234)
    table = (ctypes.c_void_p * 1)(ctypes.cast(create, ctypes.c_void_p))
    functions = (get_api(lambda version: ctypes.addressof(table) if version == 1 else None),
                 get_version(lambda: ctypes.addressof(release)))
    base = (ctypes.c_void_p * 2)(*(ctypes.cast(function, ctypes.c_void_p) for function in functions))
    library.RegisterCustomOps.restype = ctypes.c_void_p
    assert library.RegisterCustomOps(None, base) == 1234
    assert said == [(1, 'mmmamba needs ONNX Runtime 1.17 or later, but this is 1.16.3.')]


def test_the_library_brings_neither_scans_of_its_own_nor_threads():
    path = onnxruntime_library()
    assert not hasattr(ctypes.CDLL(path), 'scan_forward')  # which is libscan.so's
    assert b'GOMP' not in Path(path).read_bytes()


def test_the_library_for_openvino_is_for_one_release(monkeypatch, tmp_path):
    monkeypatch.setattr(libraries, 'FOLDER', tmp_path)
    not_built = (None, 'The library for OpenVINO was not built; python -m mmmamba.deploy.native.build builds it.')
    assert libraries.openvino_library() == not_built
    (tmp_path / 'libmmmamba_openvino.so').touch()
    assert libraries.openvino_library() == not_built
    (tmp_path / 'openvino_version.txt').write_text('1.0\n')
    path, reason = libraries.openvino_library()
    assert path is None
    assert 'The library was built for OpenVINO 1.0, not' in reason or reason == 'OpenVINO is not installed.'


@pytest.mark.parametrize('compiler', ['/bin/false', '/no/such/compiler'])
def test_an_installation_without_a_compiler_says_why(tmp_path, compiler):
    for folder in ('mmmamba/ops/cpu', 'mmmamba/deploy/native'):
        shutil.copytree(ROOT / folder, tmp_path / folder,
                        ignore=shutil.ignore_patterns('*.so', '*.txt', '__pycache__'))
    (tmp_path / 'setup.py').write_text(
        "import runpy, setuptools\nnative = runpy.run_path('mmmamba/ops/cpu/build_native.py')\n"
        "setuptools.setup(name='mmmamba', packages=['mmmamba.ops.cpu', 'mmmamba.deploy.native'],\n"
        "                 ext_modules=[native['ONNXRUNTIME_EXTENSION']],\n"
        "                 cmdclass={'build_ext': native['BuildNative']})\n")
    subprocess.run([sys.executable, 'setup.py', '-q', 'build_ext', '--inplace'], cwd=tmp_path, check=True,
                   env={**os.environ, 'CC': compiler}, capture_output=True)
    folder = tmp_path / 'mmmamba' / 'deploy' / 'native'
    assert not (folder / 'libmmmamba_onnxruntime.so').exists()
    assert compiler in (folder / 'build_log.txt').read_text()


@pytest.mark.parametrize(('compiler', 'message'), [
    ('/bin/false', "The compiler '/bin/false' failed"), ('/no/such', "The compiler '/no/such' cannot run")])
def test_the_library_for_openvino_needs_a_compiler(monkeypatch, compiler, message):
    pytest.importorskip('openvino')
    before = sorted(libraries.FOLDER.iterdir())
    monkeypatch.setenv('CC', compiler)
    with pytest.raises(InputError, match=message):
        build.build()
    assert sorted(libraries.FOLDER.iterdir()) == before


def test_the_library_for_openvino_needs_openvino(monkeypatch):
    monkeypatch.setattr(build, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match='OpenVINO is not installed'):
        build.build()


def test_the_library_for_openvino_needs_a_folder_to_write_to(monkeypatch, tmp_path):
    pytest.importorskip('openvino')
    (tmp_path / 'file').touch()
    monkeypatch.setattr(build, 'FOLDER', tmp_path / 'file')
    with pytest.raises(InputError, match='cannot be written to .*file: Not a directory'):
        build.build()


def test_an_interrupted_build_leaves_no_library_with_the_version_of_another(monkeypatch, tmp_path):
    pytest.importorskip('openvino')
    for module in (build, libraries):
        monkeypatch.setattr(module, 'FOLDER', tmp_path)
    for name in (libraries.OPENVINO, libraries.OPENVINO_VERSION):
        (tmp_path / name).write_text('old')

    def made(folder: Path, *_: object) -> Path:
        (folder / 'new').write_text('new')
        return folder / 'new'

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build, '_compile', made)
    monkeypatch.setattr(build, 'version', interrupt)
    with pytest.raises(KeyboardInterrupt):
        build.build()
    assert (tmp_path / libraries.OPENVINO).read_text() == 'new'
    assert libraries.openvino_library().reason.startswith('The library for OpenVINO was not built')


def test_the_library_for_openvino_stays_loaded():
    """OpenVINO would unload it with the last model that it knows to need it, and crash where something else does."""
    openvino_library()
    code = ('import gc, openvino, sys; from mmmamba.deploy.native.libraries import openvino_library;'
            'library = str(openvino_library().path); core = openvino.Core(); core.add_extension(library); del core;'
            'gc.collect(); sys.exit(library not in open("/proc/self/maps").read())')
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
