import pytest
from exporting import export
from small_detector import build, build_with_one_scan

from mmmamba.deploy.native.libraries import openvino_library


@pytest.fixture(scope='session')
def exported(tmp_path_factory):
    """An ONNX file for 64 x 96, and what PyTorch runs."""
    pytest.importorskip('onnxruntime')
    out = tmp_path_factory.mktemp('export') / 'tiny.onnx'
    return out, export(build(), out, size=(64, 96))


@pytest.fixture(scope='session', params=[True, False], ids=['portable', 'extension'])
def openvino_file(request, tmp_path_factory):
    """An .xml file, and whether its scans are OpenVINO's own operators."""
    pytest.importorskip('openvino')
    if not request.param and (library := openvino_library()).path is None:
        pytest.skip(library.reason)
    out = tmp_path_factory.mktemp('export') / 'tiny.xml'
    export(build_with_one_scan(), out, 'openvino', size=(64, 96), portable=request.param)
    assert sorted(path.name for path in out.parent.iterdir()) == ['tiny.bin', 'tiny.xml']
    return out, request.param
