"""Detectors for other runtimes. A format is a class; its packages are needed only where it is used."""
from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from mmmamba.deploy.export.exporter import Exporter, ExportOptions, Preprocessing, Suppression
from mmmamba.deploy.export.network import exported_network

__all__ = ['EXPORTERS', 'ExportOptions', 'Exporter', 'Preprocessing', 'Suppression', 'exported_network',
           'make_exporter']

EXPORTERS: Mapping[str, tuple[str, str]] = MappingProxyType({
    'onnx': ('to_onnx', 'OnnxExporter'),
    'openvino': ('to_openvino', 'OpenVinoExporter'),
    'torch-export': ('to_pt2', 'TorchExporter'),
    'aoti': ('to_pt2', 'AotiExporter'),
})
"""Formats by name: module and class."""


def make_exporter(name: str) -> Exporter:
    """Returns the exporter of a format.

    Raises:
        ModuleNotFoundError: A package that it needs is not installed.
    """
    module, exporter = EXPORTERS[name]
    return getattr(import_module(f'{__name__}.{module}'), exporter)()
