"""Pretrained weights of a backbone: all of them fit, or none is loaded and the first names of each side are said."""
from __future__ import annotations

import io
import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.logging import MMLogger
from parity_weights import state_dict

from mmmamba.errors import InputError

DATA = Path(__file__).parents[1] / 'data'
SMALL = dict(type='ODMamba', arch=None, depths=(1, 1, 1, 1), widths=(8, 8, 16, 16))


@pytest.fixture
def log(caplog):
    """What is logged while a test runs."""
    logger = MMLogger.get_instance('pretrained')
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)


def weights(**settings) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return MODELS.build(dict(SMALL, **settings)).state_dict()


def load(path: Path, content: dict, settings: dict | None = None, **init_cfg) -> torch.nn.Module:
    """A backbone after ``init_weights`` from a file of ``content``."""
    torch.save(content, path)
    torch.manual_seed(1)
    backbone = MODELS.build(
        dict(SMALL, **(settings or {}), init_cfg=dict(type='Pretrained', checkpoint=str(path), **init_cfg)))
    backbone.init_weights()
    return backbone


def assert_equal(backbone: torch.nn.Module, expected: dict[str, torch.Tensor]) -> None:
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_a_detector_gives_its_backbone(tmp_path, log):
    source = weights()
    detector = {**{f'backbone.{key}': value for key, value in source.items()}, 'bbox_head.conv.weight': torch.ones(1)}
    for init_cfg in ({}, dict(prefix='backbone.')):
        assert_equal(load(tmp_path / 'detector.pth', dict(state_dict=detector), **init_cfg), source)
    assert f'{len(source)} tensors for ODMamba; 1 not used: bbox_head.conv.weight' in log.text


def test_stages_that_the_backbone_was_not_given_are_left_out(tmp_path, log):
    source = weights()
    backbone = load(tmp_path / 'weights.pth', source, dict(out_indices=(0, 1)))
    assert_equal(backbone, source)
    assert 'not used: downsamples.1' in log.text and not hasattr(backbone, 'sppf')


def test_a_detector_of_the_reference_is_converted(tmp_path):
    shapes = json.loads((DATA / 'mamba_yolo_t_paper.shapes.json').read_text())
    reference = {key: torch.from_numpy(value) for key, value in state_dict(shapes).items()}
    backbone = load(tmp_path / 'mamba-yolo.pt', dict(model=reference), dict(arch='t', depths=None, widths=None))
    assert torch.equal(backbone.stem.conv1.conv.weight, reference['model.0.conv.0.weight'])


@pytest.mark.parametrize('change, message', [
    (lambda w: w.pop('stem.conv1.conv.weight'), r'1 weights are missing \(stem\.conv1\.conv\.weight\)'),
    (lambda w: w.update(surplus=torch.ones(1)), r'1 are unknown \(surplus\)'),
    (lambda w: w.update({'stem.conv1.conv.weight': torch.ones(2)}),
     r'1 have another shape \(stem\.conv1\.conv\.weight is \(2,\), not \(4, 3, 3, 3\)\)'),
    (lambda w: (w.clear(), w.update({'levels.0.weight': torch.ones(1)})),
     r'weights are missing \(stem\.conv1\.conv\.weight, .*, …\); 1 are unknown \(levels\.0\.weight\)'),
])
def test_what_does_not_fit_is_named_and_not_loaded(tmp_path, change, message):
    content = weights()
    change(content)
    with pytest.raises(InputError, match=message):
        load(tmp_path / 'weights.pth', content)


def test_no_key_has_the_prefix_or_no_file_is_there(tmp_path):
    with pytest.raises(InputError, match=r'no key begins with neck\.; the first are stem\.conv1\.conv\.weight, .*, …'):
        load(tmp_path / 'weights.pth', weights(), prefix='neck.')
    backbone = MODELS.build(dict(SMALL, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'none.pth'))))
    with pytest.raises(InputError, match='none.pth'):
        backbone.init_weights()


class Server(BaseHTTPRequestHandler):
    """Serves ``content`` by path; announces a length twice that of what it sends at ``/short``."""

    content: ClassVar[dict[str, bytes]] = {}

    def do_GET(self):
        content = self.content.get(self.path)
        self.send_response(200 if content else 404)
        self.send_header('Content-Length', str(len(content or b'') * (2 if self.path == '/short' else 1)))
        self.end_headers()
        self.wfile.write(content or b'')

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Address of a server, with the folder of downloads elsewhere than the user's."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setenv('no_proxy', '*')
    Server.content = {}
    with ThreadingHTTPServer(('127.0.0.1', 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def file_of(state: dict[str, torch.Tensor]) -> bytes:
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def from_address(address: str) -> torch.nn.Module:
    backbone = MODELS.build(dict(SMALL, init_cfg=dict(type='Pretrained', checkpoint=address)))
    backbone.init_weights()
    return backbone


def test_an_address_is_downloaded_once(server, tmp_path):
    source, other = weights(), {key: value + 1 for key, value in weights().items()}
    Server.content = {'/a%23b/weights.pth': file_of(source), '/other/weights.pth': file_of(other)}
    assert_equal(from_address(f'{server}/a%23b/weights.pth'), source)
    assert_equal(from_address(f'{server}/other/weights.pth'), other)  # another file of the same name
    Server.content = {}
    assert_equal(from_address(f'{server}/a%23b/weights.pth'), source)  # nobody serves it any more
    assert all(path.name.endswith('-weights.pth') for path in (tmp_path / 'hub/checkpoints').iterdir())


def test_a_download_that_fails_leaves_nothing(server, tmp_path):
    Server.content = {'/short': file_of(weights())}
    for address, message in {
        f'{server}/none.pth': 'cannot download http.*none.pth: .*404',
        f'{server}/short': 'cannot download http.*short: .*incomplete',
        'http://[bad/weights.pth': r'http://\[bad/weights.pth',
        'torchvision://resnet50': 'neither a file nor an HTTP address',
    }.items():
        with pytest.raises(InputError, match=message):
            from_address(address)
    assert not list(tmp_path.glob('hub/checkpoints/*'))


def test_wrappers_and_prefixes(tmp_path):
    source = weights()
    for before, settings in {
        'module.': {}, 'module.backbone.': {}, 'teacher.backbone.': dict(prefix='teacher.backbone'),
        'encoder.': dict(prefix='encoder.', map_location='cpu'),
    }.items():
        content = {f'{before}{key}': value for key, value in source.items()}
        assert_equal(load(tmp_path / 'weights.pth', content, **settings), source)


def test_a_reference_detector_with_a_head_like_ours(tmp_path):
    shapes = json.loads((DATA / 'vmamba_t_s1l8.shapes.json').read_text())
    reference = {f'backbone.{key}': torch.from_numpy(value) for key, value in state_dict(shapes).items()}
    content = {**reference, 'bbox_head.reg_branches.0.0.weight': torch.ones(1)}
    backbone = load(tmp_path / 'detr.pth', content, dict(type='VMamba', arch='t', depths=None, widths=None))
    assert torch.equal(backbone.out_norms['3'].weight, reference['backbone.outnorm3.weight'])


def test_other_initialisations_still_run_and_weights_are_loaded_once(tmp_path):
    source = weights()
    torch.save(source, tmp_path / 'weights.pth')
    constant = dict(type='Constant', layer='Conv2d', val=3.0)
    backbone = MODELS.build(dict(SMALL, init_cfg=constant))
    backbone.init_weights()
    assert (backbone.stem.conv1.conv.weight == 3).all()
    both = MODELS.build(
        dict(SMALL, init_cfg=[dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')), constant]))
    both.init_weights()
    assert_equal(both, source)
    with torch.no_grad():
        both.stem.conv1.conv.weight.fill_(7)
    both.init_weights()
    assert (both.stem.conv1.conv.weight == 7).all()
