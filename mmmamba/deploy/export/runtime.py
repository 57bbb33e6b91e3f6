"""Runs exported detectors with NumPy, OpenCV and ONNX Runtime, OpenVINO or PyTorch: no MMDetection, no mmmamba.

    from runtime import Detector
    boxes, scores, labels = Detector('mamba-yolo_t.onnx')(image)

This file imports nothing of the package: copy it next to an exported file, or import it as
``mmmamba.deploy.export.runtime``.
"""
from __future__ import annotations

import ast
import json
import os
import threading
import zipfile
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_METADATA = ('task', 'names', 'imgsz', 'end2end', 'letterbox', 'compiled_scans', 'stride')
"""What is read of what the exporter keeps in a file."""
METADATA_FILE = 'mmmamba.json'
"""What is kept in a .pt2 file, in its folder ``extra``."""
_LARGEST_METADATA = 2 ** 20
"""Bytes."""
BUILD_COMMAND = 'python -m mmmamba.deploy.native.build'


class RuntimeFileError(Exception):
    """An exported file, or an image, that cannot be used; the message is one sentence."""


class Detections(NamedTuple):
    """What was found in an image, best first."""

    boxes: np.ndarray
    """(n, 4): x1, y1, x2, y2 in pixels of the image."""
    scores: np.ndarray
    """(n,)."""
    labels: np.ndarray
    """(n,), which of the file's classes."""


class OnnxSession:
    """An ONNX file in ONNX Runtime, on a CPU.

    Args:
        path: The file.
        threads: Threads; 0 for ONNX Runtime's choice.
        precision: ``'f32'``.

    Attributes:
        library: The compiled scan that runs the file's scans; None if standard operators do.

    Raises:
        RuntimeFileError: ONNX Runtime is not installed, or cannot read the file.
    """

    def __init__(self, path: str | Path, threads: int = 0, precision: str = 'f32') -> None:
        onnxruntime = _import('onnxruntime')
        _require_file(path)
        if precision != 'f32':
            raise RuntimeFileError(f'ONNX Runtime computes in f32 on a CPU, not in {precision}; OpenVINO has bf16')
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        library = find_library('libmmmamba_onnxruntime.so')
        if library is not None:
            # A library cannot ask how many threads there are.
            options.add_session_config_entry('mmmamba.threads', str(threads or os.cpu_count() or 1))
            try:
                options.register_custom_ops_library(str(library))
            except Exception as error:  # onnxruntime's errors have no class of their own
                raise RuntimeFileError(f'{library} cannot be used: {_line(error)}') from error
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
        except Exception as error:
            raise RuntimeFileError(f'{path} cannot be read: {_line(error)}') from error
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.library = library if self.metadata.get('compiled_scans') == 'True' else None
        self.shape: list[Any] = self._session.get_inputs()[0].shape
        """Batch, 3, height and width; a name where any size will do."""

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Returns the outputs for images (B, 3, H, W), RGB, float32 from 0 to 1.

        Raises:
            RuntimeFileError: The file is for images of another size or type.
        """
        _require_input(images, self.shape, self.metadata)
        return self._session.run(None, {self._session.get_inputs()[0].name: images})


class OpenVinoSession:
    """An .xml file, with its .bin, in OpenVINO, on a CPU.

    Args:
        path: The .xml file.
        threads: Threads; 0 for OpenVINO's choice.
        precision: ``'f32'``, or ``'bf16'`` for all but the scans, which pays where the CPU has it (AMX, AVX512-BF16).

    Threads that share a session wait for each other.

    Attributes:
        library: What :class:`OnnxSession` has; it works with the release of OpenVINO alone that it was built for.

    Raises:
        RuntimeFileError: OpenVINO is not installed, or cannot read the file.
    """

    def __init__(self, path: str | Path, threads: int = 0, precision: str = 'f32') -> None:
        _import('openvino')
        _require_file(path)
        if precision not in ('f32', 'bf16'):
            raise RuntimeFileError(f'precision must be f32 or bf16, got {precision}')
        how = {'INFERENCE_PRECISION_HINT': precision, 'PERFORMANCE_HINT': 'LATENCY'}
        if threads:
            how['INFERENCE_NUM_THREADS'] = str(threads)
        library, missing = _openvino_library()
        core = openvino_core(library)
        try:
            model = core.read_model(str(path))
            self._compiled = core.compile_model(model, 'CPU', how)
        except RuntimeError as error:
            if library is None and 'mmmamba' in str(error):
                raise RuntimeFileError(f'{path} needs the compiled scan, and {missing}') from error
            raise RuntimeFileError(f'{path} cannot be read: {_line(error)}') from error
        # OpenVINO answers by key alone.
        self.metadata: dict[str, str] = {
            key: str(model.get_rt_info(['model_info', key]).value) for key in _METADATA
            if model.has_rt_info(['model_info', key])}
        self.library = library if self.metadata.get('compiled_scans') == 'True' else None
        self._lock = threading.Lock()
        self.shape: list[Any] = [size.get_length() if size.is_static else str(size)
                                 for size in model.inputs[0].partial_shape]

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Returns the outputs, as :meth:`OnnxSession.run` does.

        Raises:
            RuntimeFileError: The file is for images of another size or type, or a scan failed, which wrote why.
        """
        _require_input(images, self.shape, self.metadata)
        with self._lock:  # one request, which keeps its memory
            outputs = list(self._compiled(images).values())
        if self.library is not None and any(np.isnan(output).any() for output in outputs):
            raise RuntimeFileError('the outputs are not numbers: a compiled scan failed')  # OpenVINO hides how
        return outputs


class TorchSession:
    """A .pt2 file in PyTorch, on a CPU: a program of ``torch.export``, or a package of AOTInductor.

    A .pt2 file is a program, which may do whatever its maker liked: open none that you do not trust.

    Args:
        path: The file.
        threads: Threads of PyTorch in the whole process; 0 leaves them.
        precision: ``'f32'``.

    Attributes:
        compiled: Whether the file is a package of AOTInductor.
        library: None: standard operators run the scans.

    Raises:
        RuntimeFileError: PyTorch is not installed, or cannot read the file.
    """

    library = None

    def __init__(self, path: str | Path, threads: int = 0, precision: str = 'f32') -> None:
        torch = _import('torch')
        _require_file(path)
        if precision != 'f32':
            raise RuntimeFileError(f'a .pt2 file computes in f32, not in {precision}; OpenVINO has bf16')
        self.metadata, self.shape, self.compiled = _read_pt2(path)
        if threads:
            torch.set_num_threads(threads)
        self._program: Any
        try:
            if self.compiled:
                from torch._inductor import aoti_load_package

                self._program = aoti_load_package(str(path))
            else:
                self._program = torch.export.load(str(path)).module()
        except Exception as error:  # of many classes
            raise RuntimeFileError(f'{path}, of PyTorch {self.metadata["torch"]}, cannot be read by '
                                   f'{torch.__version__}: {_line(error)}') from error

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Returns the outputs, as :meth:`OnnxSession.run` does, and raises the same errors."""
        import torch

        _require_input(images, self.shape, self.metadata)
        with torch.no_grad():
            outputs = self._program(torch.from_numpy(np.ascontiguousarray(images)))
        return [output.numpy() for output in outputs]


def _read_pt2(path: str | Path) -> tuple[dict[str, str], list[Any], bool]:
    """Returns what is kept in a .pt2 file, the shape of its input, and whether it is compiled; runs nothing of it."""
    try:
        with zipfile.ZipFile(path) as package:
            names = package.namelist()
            folder = names[0].partition('/')[0]
            with package.open(f'{folder}/extra/{METADATA_FILE}') as file:
                metadata = json.loads(file.read(_LARGEST_METADATA))
        shape: list[Any] = [1, 3, *ast.literal_eval(metadata['imgsz'])]
        if ast.literal_eval(metadata['args'])['dynamic']:
            shape = ['batch', 3, 'height', 'width']
        int(metadata['stride']), str(metadata['torch'])
    except (OSError, ValueError, SyntaxError, LookupError, TypeError, zipfile.BadZipFile):
        raise RuntimeFileError(f'{path} cannot be read: it is damaged, or was not exported by mmmamba') from None
    return metadata, shape, any(name.startswith(f'{folder}/data/aotinductor/') for name in names)


def find_library(name: str) -> Path | None:
    """Returns a compiled scan: next to this file, or in an installed mmmamba, which is not imported; None if none."""
    folders = [Path(__file__).parent]
    if (package := find_spec('mmmamba')) is not None:
        folders += [Path(folder, 'deploy', 'native') for folder in package.submodule_search_locations or ()]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


SESSIONS: dict[str, Any] = {'.onnx': OnnxSession, '.xml': OpenVinoSession, '.pt2': TorchSession}
"""What runs a file, by its ending."""


def open_file(
    path: str | Path, threads: int = 0, precision: str = 'f32'
) -> OnnxSession | OpenVinoSession | TorchSession:
    """Opens an exported file in the runtime for its ending.

    Raises:
        RuntimeFileError: There is no runtime for it, or it cannot be read.
    """
    suffix = Path(path).suffix
    if suffix not in SESSIONS:
        raise RuntimeFileError(f'{path}: an exported file ends with {" or ".join(SESSIONS)}')
    return SESSIONS[suffix](path, threads, precision)


@cache
def openvino_core(library: Path | None) -> Any:
    """Returns the process's ``openvino.Core``, with the compiled scan or without.

    There is one, and it stays. When a Core of OpenVINO 2026.4 goes, it puts back the signal stack that it found, even
    that of another Core that is gone; then the next signal (Ctrl-C, the end of a data worker) ends the process.

    Raises:
        RuntimeFileError: The library cannot be used.
    """
    core = _import('openvino').Core()
    if library is not None:
        try:
            core.add_extension(str(library))
        except RuntimeError as error:
            raise RuntimeFileError(f'{library} cannot be used: {_line(error)}') from error
    return core


def _openvino_library() -> tuple[Path | None, str]:
    """Returns the compiled scan for the OpenVINO that is installed, and what to say where it is needed and None."""
    library = find_library('libmmmamba_openvino.so')
    if library is None:
        return None, f'there is none here; {BUILD_COMMAND} builds it, and --portable makes a file without'
    release = library.with_name('openvino_version.txt')
    if not release.is_file():
        return None, f'{release}, which belongs to the one here, is missing'
    built_for = release.read_text(encoding='utf-8').strip()
    try:
        installed = version('openvino')
    except PackageNotFoundError:  # not by pip
        installed = 'of an unknown release'
    if built_for == installed:
        return library, ''
    return None, f'the one here was built for OpenVINO {built_for}, not {installed}; {BUILD_COMMAND} builds it anew'


def _import(module: str, package: str | None = None) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise RuntimeFileError(f'{package or module} is not installed: pip install {package or module}') from None


def _require_file(path: str | Path) -> None:
    if not Path(path).is_file():
        raise RuntimeFileError(f'{path} is no file')


def _line(error: Exception) -> str:
    return ' '.join(str(error).split())[:200]


def _require_input(images: np.ndarray, shape: list[Any], metadata: dict[str, str]) -> None:
    if images.dtype != np.float32 or images.ndim != len(shape) or any(
            isinstance(wanted, int) and wanted != given for wanted, given in zip(shape, images.shape)):
        raise RuntimeFileError(f'the file is for inputs of {shape} float32, got {list(images.shape)} {images.dtype}')
    stride = int(metadata.get('stride', 1))
    if any(side % stride for side in images.shape[2:]):
        raise RuntimeFileError(f'the file is for sides that are multiples of {stride}, got {list(images.shape[2:])}')


class BoxFacts(NamedTuple):
    """What a file of a detector says of its boxes and of its input."""

    classes: dict[int, str]
    """Their names."""
    has_nms: bool
    """Whether its boxes are after NMS."""
    size: tuple[int, int]
    """Height and width of the input."""
    pad_value: int
    """What pictures are padded with."""


def box_facts(path: str | Path, metadata: dict[str, str]) -> BoxFacts:
    """Reads the metadata of a detector with boxes.

    Raises:
        RuntimeFileError: The file was not exported from one.
    """
    try:
        if metadata['task'] in ('detect', 'segment'):
            height, width = ast.literal_eval(metadata['imgsz'])
            return BoxFacts(dict(ast.literal_eval(metadata['names'])), metadata['end2end'] == 'True', (height, width),
                            int(json.loads(metadata['letterbox'])['pad_value']))
    except (KeyError, ValueError, SyntaxError, TypeError):
        pass
    raise RuntimeFileError(f'{path} was not exported from a detector with boxes')


class Detector:
    """An exported detector: from a picture to its boxes.

    Args:
        path: A file that ``tools/deployment/export.py`` wrote of a detector with boxes.
        score: Boxes with a lower score are left out.
        iou: Boxes of a class that overlap a better one by more are left out; not used if the file has NMS.
        threads: Threads; 0 for the runtime's choice.
        precision: ``'f32'``; for OpenVINO also ``'bf16'``.

    Raises:
        RuntimeFileError: The file cannot be read, or was not exported from a detector with boxes.
    """

    def __init__(self, path: str | Path, score: float = 0.25, iou: float = 0.7, threads: int = 0,
                 precision: str = 'f32') -> None:
        self.session = open_file(path, threads, precision)
        self.score, self.iou = score, iou
        self.classes, self.has_nms, self.size, self.pad_value = box_facts(path, self.session.metadata)

    @property
    def scans(self) -> str:
        """What runs the scans, if there are any: the path of the compiled one, or 'standard operators'."""
        return str(self.session.library or 'standard operators')

    def __call__(self, image: np.ndarray) -> Detections:
        """Finds the objects of a picture (H, W, 3), uint8, BGR as OpenCV reads it.

        Raises:
            RuntimeFileError: It is no such picture.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise RuntimeFileError(f'an image must be (H, W, 3) uint8, got {image.shape} {image.dtype}')
        inputs, scale = letterbox(image, self.size, self.pad_value)
        output = self.session.run(inputs)[0][0]
        height, width = image.shape[:2]
        limits = np.array([width, height] * 2)
        rows = output[output[:, 4] > self.score] if self.has_nms else nms(
            output, len(self.classes), self.score, self.iou, limits * scale)
        rows = _with_area(np.column_stack([(rows[:, :4] / scale).clip(0, limits), rows[:, 4:]]))
        return Detections(rows[:, :4], rows[:, 4], rows[:, 5].astype(int))


def _with_area(rows: np.ndarray) -> np.ndarray:
    """Returns the rows x1, y1, x2, y2, … that have one: a box in the padding, clipped to the picture, has none."""
    return rows[(rows[:, 2:4] > rows[:, :2]).all(axis=1)]


def letterbox(image: np.ndarray, size: tuple[int, int], pad_value: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes an input of a BGR picture: resized with its proportions, padded at the bottom and on the right.

    Args:
        image: (H, W, 3), uint8.
        size: Height and width of the input.
        pad_value: Of what is added.

    Returns:
        (1, 3, height, width), RGB from 0 to 1; and what x1, y1, x2 and y2 of a box were multiplied by.
    """
    cv2 = _import('cv2', 'opencv-python')
    height, width = image.shape[:2]
    ratio = min(max(size) / max(height, width), min(size) / min(height, width))
    new = (max(int(width * ratio + 0.5), 1), max(int(height * ratio + 0.5), 1))
    if new[0] > size[1] or new[1] > size[0]:  # an upright picture for an input that lies, or the reverse
        ratio = min(size[0] / height, size[1] / width)
        new = (max(int(width * ratio), 1), max(int(height * ratio), 1))
    canvas = np.full((*size, 3), pad_value, np.uint8)
    canvas[:new[1], :new[0]] = cv2.resize(image, new, interpolation=cv2.INTER_LINEAR)
    inputs = np.ascontiguousarray(canvas[None, ..., ::-1].transpose(0, 3, 1, 2), np.float32) / 255
    return inputs, np.array([new[0] / width, new[1] / height] * 2)


def nms(output: np.ndarray, classes: int, score: float, iou: float, limits: np.ndarray,
        most: int = 300) -> np.ndarray:
    """Chooses among all cells of an image: the best boxes of each class, without those that overlap a better one.

    Args:
        output: (4 + classes, cells): centre, width and height, and scores.
        classes: How many.
        score: Boxes with a lower score are left out.
        iou: Largest overlap, as intersection over union.
        limits: Of x1, y1, x2 and y2: boxes are clipped to the picture before they are compared, as mmdet does, and
            those outside of it are left out.
        most: Boxes at most.

    Returns:
        (n, 6): x1, y1, x2, y2, score and class, best first.
    """
    scores = output[4:4 + classes]
    labels, cells = np.nonzero(scores > score)
    centre, sides = output[:2, cells].T, output[2:4, cells].T
    rows = np.column_stack([centre - sides / 2, centre + sides / 2, scores[labels, cells], labels])
    rows[:, :4] = rows[:, :4].clip(0, limits)
    rows = _with_area(rows)  # before boxes are counted, as mmdet does
    left = rows[np.argsort(-rows[:, 4], kind='stable')]
    kept: list[np.ndarray] = []
    while len(left) and len(kept) < most:
        best, left = left[0], left[1:]
        kept.append(best)
        overlap = np.minimum(best[2:4], left[:, 2:4]) - np.maximum(best[:2], left[:, :2])
        inside = overlap.clip(0).prod(axis=1)
        union = np.prod(best[2:4] - best[:2]) + (left[:, 2:4] - left[:, :2]).prod(axis=1) - inside
        left = left[(inside <= iou * union) | (left[:, 5] != best[5])]
    return np.array(kept, dtype=np.float32).reshape(-1, 6)
