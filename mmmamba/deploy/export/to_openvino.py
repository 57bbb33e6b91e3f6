"""OpenVINO's IR: an .xml with the graph and a .bin with the weights."""
from __future__ import annotations

import tempfile
from pathlib import Path

import openvino

from mmmamba.deploy.export.exporter import Exporter, ExportOptions
from mmmamba.deploy.export.network import ExportedNetwork
from mmmamba.deploy.export.runtime import openvino_core
from mmmamba.deploy.export.to_onnx import OnnxExporter
from mmmamba.deploy.native.libraries import openvino_library
from mmmamba.errors import InputError


class OpenVinoExporter(Exporter):
    """The ONNX file, converted.

    Its scans are operators of our extension, which the runtime needs too; with ``portable`` they are OpenVINO's own.
    """

    suffix = '.xml'
    has_half = True

    def files(self, path: Path) -> list[Path]:
        return [path, path.with_suffix('.bin')]

    def write(self, network: ExportedNetwork, out: Path, options: ExportOptions, metadata: dict[str, str]) -> None:
        library = openvino_library()
        if library.path is None and not options.portable:
            raise InputError(f'{library.reason} --portable makes a file that needs none')
        with tempfile.TemporaryDirectory() as folder:
            onnx_file = Path(folder, 'model.onnx')
            OnnxExporter().write(network, onnx_file, options, metadata)
            model = read_model(onnx_file)
            for key, value in metadata.items():
                model.set_rt_info(value, ['model_info', key])
            openvino.save_model(model, str(out), compress_to_fp16=False)


def read_model(path: Path) -> openvino.Model:
    """Reads an .onnx or .xml file, with the compiled scan where there is one."""
    return openvino_core(openvino_library().path).read_model(str(path))
