"""A static web page that runs an exported detector in the browser, with ONNX Runtime Web."""
from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmmamba.deploy.export.runtime import Detector, RuntimeFileError
from mmmamba.errors import InputError

ONNXRUNTIME_WEB = 'onnxruntime-web@1.30.0'
PAGE = Path(__file__).parent / 'page'
# What the page loads of ONNX Runtime, by the names in the page's folder: not every host knows the ending .mjs.
RUNTIME_FILES = {
    'wasm.js': 'ort.wasm.min.mjs',
    'wasm-binary.js': 'ort-wasm-simd-threaded.mjs',
    'wasm-binary.wasm': 'ort-wasm-simd-threaded.wasm',
    'webgpu.js': 'ort.webgpu.min.mjs',
    'webgpu-binary.js': 'ort-wasm-simd-threaded.asyncify.mjs',
    'webgpu-binary.wasm': 'ort-wasm-simd-threaded.asyncify.wasm',
}


def make_page(model: Path, out: Path, package: Path | None = None) -> None:
    """Writes a folder that any static host can serve: the page, a detector and ONNX Runtime Web.

    Args:
        model: An .onnx file of a detector with boxes.
        out: The folder; a page in it is replaced.
        package: Of npm's onnxruntime-web, unpacked; None to have npm fetch :data:`ONNXRUNTIME_WEB`.

    Raises:
        InputError: The file is no such detector, the package cannot be had, or the folder has other files.
    """
    if model.suffix != '.onnx':
        raise InputError(f'{model}: browsers run .onnx files')
    try:
        detector = Detector(model)  # ONNX Runtime reads it: it is sound
    except RuntimeFileError as error:
        raise InputError(str(error)) from error
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / 'detector.json').is_file())):
        raise InputError(f'--out: {out} has other files than such a page: name a new folder')
    import onnx
    from onnx import inliner

    graph = inliner.inline_local_functions(onnx.load(str(model)))  # a browser has no compiled scan
    facts = {'title': model.stem, 'size': detector.size, 'classes': list(detector.classes.values()),
             'pad_value': detector.pad_value, 'has_nms': detector.has_nms, 'score': detector.score,
             'iou': detector.iou, 'scan_nodes': _name_scans(graph.graph.node)}
    with _dist(package) as dist:
        missing = next((name for name in RUNTIME_FILES.values() if not (dist / name).is_file()), None)
        if missing is not None:
            raise InputError(f'{dist} has no {missing}: is it of {ONNXRUNTIME_WEB}?')
        out.mkdir(parents=True, exist_ok=True)
        # First, as it marks the folder as such a page.
        (out / 'detector.json').write_text(json.dumps(facts), encoding='utf-8')
        shutil.copytree(PAGE, out, dirs_exist_ok=True)
        (out / 'ort').mkdir(exist_ok=True)
        for name, source in RUNTIME_FILES.items():
            shutil.copyfile(dist / source, out / 'ort' / name)
    for prop in graph.metadata_props:
        if prop.key == 'compiled_scans':
            prop.value = 'False'
    onnx.save(graph, str(out / 'detector.onnx'))


def _name_scans(nodes: Any, are_inside: bool = False, count: int = 0) -> int:
    """Names the nodes of scans and of their steps ``scan0``, ``scan1``, …, for the page to keep them off a GPU.

    Returns:
        ``count`` and the number of such nodes.
    """
    for node in nodes:
        is_scan = are_inside or node.op_type == 'Scan'
        if is_scan:
            node.name = f'scan{count}'
            count += 1
        for attribute in node.attribute:
            if attribute.HasField('g'):
                count = _name_scans(attribute.g.node, is_scan, count)
    return count


@contextmanager
def _dist(package: Path | None) -> Iterator[Path]:
    """Gives the folder ``dist`` of onnxruntime-web."""
    if package is not None:
        yield package / 'dist'
        return
    npm = shutil.which('npm')
    if npm is None:
        raise InputError('npm is not installed: install Node.js, or name an unpacked onnxruntime-web with '
                         '--onnxruntime-web FOLDER')
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run([npm, 'pack', '--loglevel=error', ONNXRUNTIME_WEB], cwd=folder,
                                capture_output=True, text=True)
        archive = next(Path(folder).glob('*.tgz'), None)
        if packed.returncode or archive is None:
            reason = next((line for line in packed.stderr.splitlines() if line.strip()), 'it wrote no file')
            raise InputError(f'npm pack {ONNXRUNTIME_WEB} failed: {reason}')
        with tarfile.open(archive) as files:  # the members that are used alone: an archive may name any path
            inside = set(files.getnames())
            for source in RUNTIME_FILES.values():
                if f'package/dist/{source}' in inside:
                    with files.extractfile(f'package/dist/{source}') as content:
                        Path(folder, source).write_bytes(content.read())
        yield Path(folder)
