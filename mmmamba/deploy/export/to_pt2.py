"""PyTorch's own files, ``.pt2``: a program for :func:`torch.export.load`, or one that AOTInductor has compiled.

Both load where there is PyTorch alone: the scans in them are loops of plain operators.
"""
from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmmamba.deploy.export import runtime
from mmmamba.deploy.export.exporter import Exporter, ExportOptions, Preprocessing, Suppression, quiet, traced
from mmmamba.deploy.export.network import ExportedNetwork
from mmmamba.errors import InputError

LEAST_VERSION = (2, 13)
"""Of PyTorch. No version between 2.4, whose ``torch.export`` has no loops, and this one was tried."""
CONFIGS = {'cpp.threads': 1}
"""Of AOTInductor: the loops that it writes take one thread, for the blocks of a scan are so many and so small that
threads would do nothing but wait for each other. Convolutions take as many as PyTorch has where the file runs."""


class TorchExporter(Exporter):
    """A program that Python runs operator by operator."""

    suffix = '.pt2'

    def write(self, network: ExportedNetwork, out: Path, options: ExportOptions, metadata: dict[str, str]) -> None:
        program = _program(network, options)
        program.example_inputs = None  # as large as a small network
        with quiet(), out.open('wb') as file:
            torch.export.save(program, file, extra_files={runtime.METADATA_FILE: _json(metadata)})

    def require(self, network: ExportedNetwork, out: Path, options: ExportOptions,
                preprocessing: Preprocessing) -> None:
        super().require(network, out, options, preprocessing)
        if tuple(int(part) for part in torch.__version__.split('.')[:2]) < LEAST_VERSION:
            raise InputError(f'.pt2 files need PyTorch 2.13 or later, this is {torch.__version__}')


class AotiExporter(TorchExporter):
    """A program that is machine code, for processors as this one's; it needs a C++ compiler here, and none there."""

    def write(self, network: ExportedNetwork, out: Path, options: ExportOptions, metadata: dict[str, str]) -> None:
        from torch._inductor import aoti_compile_and_package
        from torch._inductor.exc import InductorError

        program = _program(network, options)
        try:
            with quiet(), out.open('wb') as file:
                aoti_compile_and_package(program, package_path=file, inductor_configs=dict(CONFIGS))
        except InductorError as error:
            problem = ' '.join(str(error).split())[-200:]  # a compiler says it at the end
            raise InputError(f'AOTInductor or its C++ compiler failed: … {problem}') from error
        with zipfile.ZipFile(out, 'a') as package:
            folder = package.namelist()[0].partition('/')[0]
            package.writestr(f'{folder}/extra/{runtime.METADATA_FILE}', _json(metadata))

    def require(self, network: ExportedNetwork, out: Path, options: ExportOptions,
                preprocessing: Preprocessing) -> None:
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        super().require(network, out, options, preprocessing)
        if options.dynamic:
            raise InputError('--dynamic is not for --format aoti: AOTInductor cannot compile loops of open sizes; '
                             'take torch-export')
        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            raise InputError('--format aoti needs a C++ compiler, and there is none: install g++, or name one by CXX'
                             ) from None


class _Suppressed(nn.Module):
    """A network whose boxes are chosen."""

    def __init__(self, network: ExportedNetwork, chosen: Suppression) -> None:
        super().__init__()
        self.network, self.chosen = network, chosen

    def forward(self, images: Tensor) -> tuple[Tensor]:
        from mmmamba.deploy.export.torch_scan import choose_boxes

        return (choose_boxes(self.network(images)[0], images.shape[2:], self.chosen),)


def _program(network: ExportedNetwork, options: ExportOptions) -> Any:
    """Returns the network as a ``torch.export.ExportedProgram`` of plain operators."""
    from mmmamba.deploy.export.torch_scan import decompositions

    module = _Suppressed(network, options.suppression) if options.suppression else network
    return traced(network, options, module, decompositions())


def _json(metadata: dict[str, str]) -> str:
    return json.dumps({**metadata, 'torch': torch.__version__})
