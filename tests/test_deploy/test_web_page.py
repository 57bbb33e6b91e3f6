"""The web page of an exported detector: its rules are runtime.py's, and its boxes in a browser are PyTorch's.

What needs a browser is skipped where Chromium is missing, or the unpacked npm package onnxruntime-web: its folder is
in the environment variable ONNXRUNTIME_WEB, or in ``node_modules``.
"""
from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('onnxruntime')

import onnx
from chromium import find_chromium, opened, served
from small_detector import build, build_with_one_scan

from mmmamba.deploy.export import ExportOptions, Preprocessing, Suppression, exported_network, make_exporter, runtime
from mmmamba.deploy.export.exporter import composed_image, on_backend
from mmmamba.deploy.export.web_page import PAGE, RUNTIME_FILES, make_page
from mmmamba.errors import InputError

HOSTILE = '<img src=x onerror=alert(1)>'
PACKAGE = Path(os.environ.get('ONNXRUNTIME_WEB') or Path(__file__).parents[2] / 'node_modules/onnxruntime-web')

RULES = """
import {readFileSync} from 'node:fs';
import {boxesOf, letterbox, nms} from './boxes.mjs';

const bytes = text => Buffer.from(text, 'base64');
const floats = text => new Float32Array(Uint8Array.from(bytes(text)).buffer);
console.log(JSON.stringify(JSON.parse(readFileSync('cases.json')).map(c => {
  if (c.rule === 'letterbox') {
    const {input, scale} = letterbox(bytes(c.pixels), c.width, c.height, c.size, 114);
    return [Buffer.from(input.buffer).toString('base64'), scale];
  }
  if (c.rule === 'nms') return nms(floats(c.output), c.cells, c.classes, c.score, c.iou, c.limits, c.most);
  return boxesOf(floats(c.output), c.dims, c.info, c.score, c.scale, c.width, c.height);
})));
"""


def encoded(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


@pytest.fixture
def run_rules(tmp_path):
    """A function that runs cases through the page's boxes.js in Node.js."""
    node = shutil.which('node')
    if node is None:
        pytest.skip('needs Node.js')

    def run(cases):
        shutil.copyfile(PAGE / 'boxes.js', tmp_path / 'boxes.mjs')
        (tmp_path / 'rules.mjs').write_text(RULES)
        (tmp_path / 'cases.json').write_text(json.dumps(cases))
        done = subprocess.run([node, 'rules.mjs'], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_letterbox_is_the_runtimes_to_the_last_bit(run_rules):
    rng = np.random.default_rng(0)
    shapes = [(48, 97), (97, 48), (64, 96), (128, 192), (5, 5), (1, 1), (1, 300), (640, 2), (333, 500), (64, 64)]
    cases = [(rng.integers(0, 256, (*shape, 3), dtype=np.uint8), size)
             for shape in shapes for size in ((64, 64), (64, 96), (96, 32))]
    answers = run_rules([dict(
        rule='letterbox', pixels=encoded(np.dstack([image[..., ::-1], np.full(image.shape[:2], 255, np.uint8)])),
        height=image.shape[0], width=image.shape[1], size=size) for image, size in cases])
    for (image, size), (got, scale) in zip(cases, answers):
        expected, expected_scale = runtime.letterbox(image, size, 114)
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(got), np.float32), expected.ravel())
        assert scale == expected_scale[:2].tolist()


def test_nms_is_the_runtimes_to_the_last_bit(run_rules):
    rng = np.random.default_rng(0)
    cases = []
    for cells, classes, masks, most in ((400, 3, 0, 300), (2000, 5, 4, 50), (1, 1, 0, 300), (40, 2, 0, 300)):
        output = rng.random((4 + classes + masks, cells), np.float32)
        output[:4] *= np.array([[100], [60], [40], [40]], np.float32)
        output[4:] = np.round(output[4:], 2)  # with equal scores
        cases.append((output, classes, most))
    cases.append((cases[0][0] * np.float32(0.1), 3, 300))  # none is good enough
    limits = np.array([90.5, 47.25] * 2)
    answers = run_rules([dict(
        rule='nms', output=encoded(output), cells=output.shape[1], classes=classes, score=0.3, iou=0.5,
        limits=limits[:2].tolist(), most=most) for output, classes, most in cases])
    for (output, classes, most), got in zip(cases, answers):
        expected = runtime.nms(output, classes, 0.3, 0.5, limits, most)
        np.testing.assert_array_equal(np.array(got, np.float32).reshape(-1, 6), expected)


def test_rows_after_nms_are_brought_into_the_picture(run_rules):
    rows = np.array([[-3, 2, 60, 50, 0.9, 1], [55, 4, 60, 9, 0.8, 1],  # the second in the padding
                     [4, 4, 9, 9, 0.4, 0], [0, 0, 5, 5, 0.3, 2]], np.float32)
    got, = run_rules([dict(rule='boxes', output=encoded(rows), dims=(1, 4, 6), info=dict(has_nms=True), score=0.3,
                           scale=(0.5, 0.25), width=100, height=180)])
    assert got == [[0, 8, 100, 180, pytest.approx(0.9), 1], [8, 16, 18, 36, pytest.approx(0.4), 0]]


@pytest.fixture(scope='module')
def network():
    """Of a small detector whose boxes depend on the picture, and scores and boxes are of all sizes."""
    return exported_network(build(variances=(0.1, 0.3), bias=-5, std=2))


@pytest.fixture(scope='module')
def models(network, tmp_path_factory):
    """Files for 320 x 320: raw, with a function for scans; and a smaller one with NMS."""
    folder = tmp_path_factory.mktemp('models')
    small = exported_network(build_with_one_scan(variances=(0.1, 0.3), bias=-3.5, std=2))
    for name, exported, suppression in (('raw', network, None), ('nms', small, Suppression(0.1, 0.5, 20))):
        options = ExportOptions((320, 320), suppression=suppression)
        make_exporter('onnx').export(exported, folder / f'{name}.onnx', options,
                                     Preprocessing(114, ('square', HOSTILE, 'tall')))
    return folder


@pytest.fixture
def fake_package(tmp_path):
    dist = tmp_path / 'package/dist'
    dist.mkdir(parents=True)
    for name in RUNTIME_FILES.values():
        (dist / name).write_text(name)
    return dist.parent


def test_folder_holds_all_that_the_page_loads(models, fake_package, tmp_path):
    out = tmp_path / 'page'
    for name in ('nms', 'raw'):  # the second replaces the first
        make_page(models / f'{name}.onnx', out, fake_package)
    assert {path.name for path in out.iterdir()} == {
        *(path.name for path in PAGE.iterdir()), 'ort', 'detector.json', 'detector.onnx'}
    assert {path.name: path.read_text() for path in (out / 'ort').iterdir()} == RUNTIME_FILES
    facts = json.loads((out / 'detector.json').read_text())
    assert facts == dict(title='raw', size=[320, 320], classes=['square', HOSTILE, 'tall'], pad_value=114,
                         has_nms=False, score=0.25, iou=0.7, scan_nodes=facts['scan_nodes'])
    model = onnx.load(out / 'detector.onnx')
    assert not model.functions and {node.domain for node in model.graph.node} == {''}
    scans = [node for node in model.graph.node if node.op_type == 'Scan']
    inside = [node for scan in scans for node in scan.attribute[0].g.node or scan.attribute[1].g.node]
    assert len(scans) and {node.name for node in (*scans, *inside)} == {
        f'scan{i}' for i in range(facts['scan_nodes'])}
    image = composed_image(200, 300, seed=3)
    for got, expected in zip(runtime.Detector(out / 'detector.onnx', 0.1)(image),
                             runtime.Detector(models / 'raw.onnx', 0.1)(image)):
        np.testing.assert_allclose(got, expected, atol=1e-3)


def test_bad_input_is_one_line_and_leaves_no_folder(models, fake_package, tmp_path, monkeypatch):
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'index.html').write_text('mine')
    (tmp_path / 'broken.onnx').write_bytes(b'no model')
    raw, out, kept = models / 'raw.onnx', tmp_path / 'page', set(tmp_path.iterdir())
    monkeypatch.setenv('PATH', str(tmp_path))
    for model, folder, package, problem in (
        (tmp_path / 'a.xml', out, fake_package, r'browsers run \.onnx files'),
        (tmp_path / 'broken.onnx', out, fake_package, 'cannot be read'),
        (raw, other, fake_package, 'has other files'),
        (raw, out, None, 'npm is not installed'),
        (raw, out, other, 'has no ort.wasm.min.mjs'),
    ):
        with pytest.raises(InputError, match=problem) as caught:
            make_page(model, folder, package)
        assert '\n' not in str(caught.value) and set(tmp_path.iterdir()) == kept
    npm = tmp_path / 'npm'
    npm.write_text('#!/bin/sh\necho "npm error network" >&2\nexit 1\n')
    npm.chmod(0o755)
    with pytest.raises(InputError, match='npm pack onnxruntime-web@.* failed: npm error network'):
        make_page(raw, out, None)
    assert (other / 'index.html').read_text() == 'mine' and not out.exists()


@pytest.fixture(scope='module')
def page(models, tmp_path_factory):
    """A browser with the pages raw/ and nms/ and broken/ of a plain static host."""
    chromium = find_chromium()
    if chromium is None or not (PACKAGE / 'dist').is_dir():
        pytest.skip('needs Chromium, and onnxruntime-web in the folder of the variable ONNXRUNTIME_WEB')
    folder = tmp_path_factory.mktemp('pages')
    for name in ('raw', 'nms'):
        make_page(models / f'{name}.onnx', folder / name, PACKAGE)
    shutil.copytree(folder / 'raw', folder / 'broken')
    (folder / 'broken/detector.onnx').write_bytes(b'no model')
    camera = ('--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream')
    with served(folder) as address, opened(chromium, *camera) as page:
        page.address = address
        yield page


def text_of(page, name: str) -> str:
    return page.run(f'document.getElementById("{name}").textContent')


def go_to(page, name: str) -> None:
    page.errors.clear()
    page.call('Page.navigate', url=f'{page.address}{name}/')
    page.wait('document.getElementById("status")?.textContent.startsWith("Ready")')


def detections(page) -> np.ndarray:
    page.wait('Array.isArray(globalThis.detections)')
    return np.array(page.run('detections')).reshape(-1, 6)


def write_picture(path: Path, height: int, width: int) -> np.ndarray:
    cv2.imwrite(str(path), composed_image(height, width, seed=3))
    return cv2.imread(str(path))


@pytest.mark.parametrize('suffix, shape', [('.jpg', (333, 500)), ('.png', (410, 150))])
def test_browser_finds_pytorchs_boxes(page, network, suffix, shape, tmp_path):
    image = write_picture(tmp_path / f'a{suffix}', *shape)
    inputs, scale = runtime.letterbox(image, (320, 320), 114)
    with torch.no_grad(), on_backend(network, None):
        output = network(torch.from_numpy(inputs))[0][0].numpy()
    limits = np.array(shape[::-1] * 2)
    rows = runtime.nms(output, 3, 0.25, 0.7, limits * scale)
    expected = (rows[:, :4] / scale).clip(0, limits)
    go_to(page, 'raw')
    for how in json.loads(page.run('JSON.stringify([...document.getElementById("how").options].map(o => o.value))')):
        page.run(f'how.value = {json.dumps(how)}; how.dispatchEvent(new Event("change"))')
        page.wait('document.getElementById("status").textContent.startsWith("Ready")')
        page.run('delete globalThis.detections')
        page.choose_file('#file', tmp_path / f'a{suffix}')
        found = detections(page)
        assert len(found) == len(rows) > 5
        np.testing.assert_array_equal(found[:, 5], rows[:, 5])
        np.testing.assert_allclose(found[:, :4], expected, rtol=0, atol=1e-3)
        np.testing.assert_allclose(found[:, 4], rows[:, 4], rtol=0, atol=1e-5)
    assert not page.errors


def test_file_with_nms_dropped_onto_the_page(page, models, tmp_path):
    expected = runtime.Detector(models / 'nms.onnx')(write_picture(tmp_path / 'a.png', 200, 300))
    go_to(page, 'nms')
    content = base64.b64encode((tmp_path / 'a.png').read_bytes()).decode()
    page.run(f'globalThis.content = {json.dumps(content)}')
    page.run("""(() => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([Uint8Array.from(atob(content), c => c.charCodeAt())], 'a.png'));
      document.body.dispatchEvent(new DragEvent('drop', {dataTransfer, bubbles: true, cancelable: true}));
    })()""")
    found = detections(page)
    np.testing.assert_allclose(found[:, :4], expected.boxes, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found[:, 4], expected.scores, rtol=0, atol=1e-5)
    assert len(found) == len(expected.labels) == page.run('document.querySelectorAll("#objects li").length') > 3


def test_threshold_classes_and_names_as_text(page, tmp_path):
    write_picture(tmp_path / 'a.png', 200, 300)
    go_to(page, 'raw')
    page.choose_file('#file', tmp_path / 'a.png')
    found = detections(page)
    page.run('score.value = 0.05; score.dispatchEvent(new Event("input"))')
    assert len(detections(page)) > len(found)
    page.run('score.value = 0.4; score.dispatchEvent(new Event("input"))')
    assert 0 < len(detections(page)) < len(found) and detections(page)[:, 4].min() > 0.4
    page.run('none.click()')
    assert page.run('detections.length') == 0
    page.run('document.querySelectorAll("#classes input")[1].click()')
    assert set(detections(page)[:, 5]) <= {1}
    page.run('all.click(); score.value = 0.05; score.dispatchEvent(new Event("input"))')
    assert HOSTILE in text_of(page, 'classes') and HOSTILE in text_of(page, 'objects')
    assert page.run('document.images.length') == 0 and not page.errors


def test_camera(page):
    go_to(page, 'raw')
    page.run('camera.click()')
    detections(page)
    page.run('delete globalThis.detections')
    detections(page)  # the next picture
    page.run('camera.click()')
    assert text_of(page, 'camera') == 'Use the camera' and not text_of(page, 'problem')


def test_failures_are_one_line_on_the_page(page, tmp_path):
    (tmp_path / 'notes.txt').write_text('no picture')
    go_to(page, 'raw')
    page.choose_file('#file', tmp_path / 'notes.txt')
    page.wait('problem.textContent')
    assert text_of(page, 'problem') == 'notes.txt is not a picture that this browser can read.'
    page.call('Page.navigate', url=f'{page.address}broken/')
    page.wait('document.getElementById("problem")?.textContent.startsWith("The network cannot run: ")')
