"""Detectors for other runtimes. A format is a class; its packages are needed only where it is used."""
from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Callable

from mmmamba.deploy.export.exporter import Exporter, ExportOptions, Preprocessing, Suppression
from mmmamba.deploy.export.network import exported_network
from mmmamba.errors import InputError

__all__ = ['EXPORTERS', 'ExportOptions', 'Exporter', 'Preprocessing', 'Suppression', 'exported_network']


def _load(module: str, name: str, needs: str) -> Callable[[], Exporter]:
    """Returns a maker of a format's exporter; it raises InputError if one of the packages it ``needs`` is missing."""

    def make() -> Exporter:
        try:
            return getattr(import_module(f'{__name__}.{module}'), name)()
        except ModuleNotFoundError as error:
            raise InputError(f'{error.name} is not installed: pip install {needs}') from None

    return make


EXPORTERS: Mapping[str, Callable[[], Exporter]] = MappingProxyType({
    'onnx': _load('to_onnx', 'OnnxExporter', 'onnx onnxscript onnxruntime'),
    'openvino': _load('to_openvino', 'OpenVinoExporter', 'openvino onnx onnxscript'),
})
"""Formats by name."""
