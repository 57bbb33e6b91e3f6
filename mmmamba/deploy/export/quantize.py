"""Convolutions of an OpenVINO file in int8, without training: NNCF takes their ranges from the user's pictures.

Scans and their projections, attention, softmax and the distances made of it, norms and gates stay float32.
"""
from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import nncf
import numpy as np
import openvino

from mmmamba.deploy.export import runtime
from mmmamba.deploy.export.exporter import as_input
from mmmamba.deploy.export.to_openvino import read_model
from mmmamba.errors import InputError

IN_FLOAT = ('MatMul', 'Multiply', 'Subtract', 'Divide', 'MVN', 'Softmax')
"""Operators that NNCF would quantise as well."""
SCORE = 0.25
"""Boxes with a lower score are not looked at where files are compared."""


def quantize(source: Path, out: Path, images: Sequence[np.ndarray]) -> None:
    """Writes a file with int8 convolutions, of the same inputs, outputs and metadata.

    Args:
        source: A file that :class:`OpenVinoExporter` wrote.
        out: The file.
        images: RGB (H, W, 3), uint8, of the file's size, to calibrate on.

    Raises:
        InputError: It returns what is not finite for one of them; then there is no file.
    """
    model = read_model(source)
    nncf.set_log_level(logging.ERROR)  # it names hundreds of operators that stay as they are
    made = nncf.quantize(
        model, nncf.Dataset(images, lambda image: as_input([image])), subset_size=len(images),
        preset=nncf.QuantizationPreset.MIXED,  # asymmetric activations: GELU and SiLU reach further up than down
        ignored_scope=nncf.IgnoredScope(types=list(IN_FLOAT), validate=False))
    openvino.save_model(made, str(out), compress_to_fp16=False)
    problem = None
    try:
        session = runtime.OpenVinoSession(out)
        if not all(np.isfinite(output).all() for image in images for output in session.run(as_input([image]))):
            problem = 'its outputs are not finite'
    except runtime.RuntimeFileError as error:
        problem = str(error)
    if problem:
        for path in (out, out.with_suffix('.bin')):
            path.unlink(missing_ok=True)
        raise InputError(f'the file was not kept: in int8, {problem}')


def add_metadata(path: Path, facts: Mapping[str, str]) -> None:
    """Adds facts to what is kept in an .xml file."""
    tree = ElementTree.parse(path)
    info = tree.find('rt_info/model_info')
    for key, value in facts.items():
        ElementTree.SubElement(info, key, value=value)
    tree.write(path, encoding='utf-8', xml_declaration=True)


def differences_of_files(one: Path, other: Path, images: Sequence[np.ndarray], classes: int) -> dict[str, float]:
    """Returns the largest and the mean difference of two files' boxes, in pixels, and of their scores.

    Boxes count that the first finds with a score of :data:`SCORE`, and the scores of all cells.
    """
    boxes, scores = [np.zeros(0)], []
    sessions = [runtime.OpenVinoSession(path) for path in (one, other)]
    for image in images:
        expected, got = (session.run(as_input([image]))[0][0, :4 + classes] for session in sessions)
        found = expected[4:].max(0) >= SCORE
        boxes.append(np.abs(got - expected)[:4, found].ravel())
        scores.append(np.abs(got - expected)[4:].ravel())
    every = {'boxes': np.concatenate(boxes), 'scores': np.concatenate(scores)}
    return {f'{which} of {name}': float(value) for name, values in every.items()
            for which, value in (('largest', values.max(initial=0)), ('mean', values.mean() if len(values) else 0))}
