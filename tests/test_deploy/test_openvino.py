"""Detectors as OpenVINO files, and OpenVINO's sessions."""
from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from exporting import assert_equals_pytorch
from small_detector import build_with_one_scan

from mmmamba.deploy.export import exported_network, runtime
from mmmamba.deploy.export.exporter import as_input, composed_image
from mmmamba.deploy.native.libraries import openvino_library


def test_openvino(openvino_file):
    out, portable = openvino_file
    detector = runtime.Detector(out, score=0.1)
    assert detector.classes == {0: 'square', 1: 'wide', 2: 'tall'} and detector.size == (64, 96)
    assert detector.scans == ('standard operators' if portable else str(openvino_library().path))
    image = np.full((50, 90, 3), 90, np.uint8)
    found = detector(image)
    rounded = runtime.Detector(out, score=0.1, precision='bf16')(image)
    assert len(found.labels) > 5 and abs(len(rounded.labels) - len(found.labels)) <= 2
    np.testing.assert_allclose(rounded.scores[:3], found.scores[:3], atol=0.02)
    assert_equals_pytorch(out, exported_network(build_with_one_scan()))


def test_a_file_that_needs_the_extension_says_so(openvino_file, monkeypatch, tmp_path):
    out, portable = openvino_file
    other = tmp_path / 'libmmmamba_openvino.so'
    (tmp_path / 'openvino_version.txt').write_text('2020.1.0\n')
    alone = tmp_path / 'alone' / other.name
    for library, problem in ((None, 'there is none here'), (other, 'was built for OpenVINO 2020.1.0'),
                             (alone, 'openvino_version.txt, which belongs to the one here, is missing')):
        monkeypatch.setattr(runtime, 'find_library', lambda name, library=library: library)
        if portable:
            assert runtime.Detector(out).scans == 'standard operators'
        else:
            with pytest.raises(runtime.RuntimeFileError, match=f'needs the compiled scan, and .*{problem}'):
                runtime.Detector(out)


def test_a_damaged_extension_and_an_openvino_without_a_release(openvino_file, monkeypatch, tmp_path):
    out, portable = openvino_file
    library = tmp_path / 'libmmmamba_openvino.so'
    library.write_bytes(b'no library')
    monkeypatch.setattr(runtime, 'find_library', lambda name: library)
    (tmp_path / 'openvino_version.txt').write_text(f'{runtime.version("openvino")}\n')
    with pytest.raises(runtime.RuntimeFileError, match='libmmmamba_openvino.so cannot be used: '):
        runtime.Detector(out)

    def without(package):
        raise runtime.PackageNotFoundError(package)

    monkeypatch.setattr(runtime, 'version', without)
    if portable:
        runtime.Detector(out)
    else:
        with pytest.raises(runtime.RuntimeFileError, match='not of an unknown release'):
            runtime.Detector(out)


FIRST_OUT_FIRST = """
import gc, signal, subprocess, sys
from mmmamba.deploy.export import runtime

sessions = [runtime.OpenVinoSession(sys.argv[1]) for _ in range(2)]
while sessions:
    del sessions[0]
    gc.collect()
signal.signal(signal.SIGCHLD, lambda *_: print('handled'))
subprocess.run(['true'])
"""


def test_signals_are_handled_after_sessions(openvino_file):
    """OpenVINO's CPU plugin changes the stack of signal handlers."""
    done = subprocess.run([sys.executable, '-c', FIRST_OUT_FIRST, str(openvino_file[0])], capture_output=True,
                          text=True)
    assert done.returncode == 0 and done.stdout.count('handled') == 1, done.stderr


def test_threads_share_a_session(openvino_file):
    session = runtime.OpenVinoSession(openvino_file[0], threads=1)
    batches = [as_input([composed_image(64, 96, seed)]) for seed in range(4)]
    expected = [session.run(batch)[0] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for got, own in zip(pool.map(lambda batch: session.run(batch)[0], batches * 5), expected * 5):
            np.testing.assert_array_equal(got, own)


def test_a_failed_scan_is_no_result(openvino_file, monkeypatch):
    out, portable = openvino_file
    session = runtime.OpenVinoSession(out)
    nothing = np.full((1, 3, 64, 96), np.nan, np.float32)
    if portable:
        session.run(nothing)
    else:
        with pytest.raises(runtime.RuntimeFileError, match='a compiled scan failed'):
            session.run(nothing)
