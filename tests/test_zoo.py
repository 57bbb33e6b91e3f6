"""The model zoo: what it lists is there, agrees with the configs, and weights by name are downloaded and converted."""
from __future__ import annotations

import json
import re
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from parity_weights import state_dict

import mmmamba.zoo
from mmmamba.analysis.published import PUBLISHED
from mmmamba.commands import info, zoo
from mmmamba.convert import SYSTEMS
from mmmamba.errors import InputError
from mmmamba.package_files import CONFIGS, model_name
from mmmamba.zoo import find_weights, zoo_models, zoo_weights

DATA = Path(__file__).parent / 'data'


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Address of a server of ``tmp_path/served``; downloads go to ``tmp_path/hub``."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    (tmp_path / 'served').mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / 'served'))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{http.server_port}'
        http.shutdown()


def test_models_have_a_config_what_they_cost_and_ap_of_known_metrics() -> None:
    for model in zoo_models():
        assert model.config.is_file() and model.parameters > 0 and model.flops > model.parameters, model.name
        assert len(model.image_size) == 2
        assert {*model.published, *model.ours} <= {'box AP', 'mask AP'}


def test_published_ap_are_those_of_the_table_of_models() -> None:
    listed = {model_name(model.config): model.published for model in zoo_models()}
    for name, row in PUBLISHED.items():
        assert listed[name]['box AP'] == float(row.ap), name


def test_addresses_in_configs_are_in_the_zoo() -> None:
    known = {weights.address for weights in zoo_weights().values()}
    for path in CONFIGS.glob('*mamba*/*.py'):
        for address in re.findall(r"'(https?://[^']+)'", path.read_text(encoding='utf-8')):
            assert address in known, path


def test_weights_of_detectors_have_the_name_of_a_config() -> None:
    names = {model.name for model in zoo_models()}
    for weights in zoo_weights().values():
        assert weights.licence and weights.address.startswith('https://') and weights.address.startswith(
            ('https://github.com/', 'https://huggingface.co/'))
        assert (weights.name in names) == (weights.trained_on == 'COCO'), weights.name


def test_weights_by_name_are_downloaded_once_and_converted(server, tmp_path, monkeypatch) -> None:
    shapes = json.loads((DATA / 'efficient_vmamba_t.shapes.json').read_text())
    reference = {name: torch.from_numpy(value) for name, value in state_dict(shapes).items()}
    torch.save({'model': reference}, tmp_path / 'served' / 'vmamba.pth')
    (tmp_path / 'configs').mkdir()
    source = dict(Name='VMamba', Code='https://code', Licence='MIT', Backbones={'tiny': f'{server}/vmamba.pth'},
                  Detectors={})
    (tmp_path / 'configs' / 'weights.yml').write_text(yaml.safe_dump([source]))
    monkeypatch.setattr(mmmamba.zoo, 'CONFIGS', tmp_path / 'configs')
    path = find_weights('tiny')
    converted = torch.load(path, weights_only=True)['state_dict']
    expected = SYSTEMS['efficient-vmamba'](reference)
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[key], expected[key]) for key in expected)
    (tmp_path / 'served' / 'vmamba.pth').unlink()
    assert find_weights('tiny') == find_weights(f'{server}/vmamba.pth') == path
    with pytest.raises(InputError, match='no weights of that name; did you mean tiny'):
        find_weights('tinny')


def test_a_file_is_taken_as_it_is_and_a_missing_address_is_one_line(server, tmp_path) -> None:
    (tmp_path / 'own.pth').write_bytes(b'')
    assert find_weights(str(tmp_path / 'own.pth')) == tmp_path / 'own.pth'
    with pytest.raises(InputError, match='cannot download .*404.*; without a network, name a file instead'):
        find_weights(f'{server}/none.pth')


def test_what_the_commands_print(monkeypatch, capsys) -> None:
    def printed(command, *arguments: str) -> str:
        monkeypatch.setattr(sys, 'argv', [command.__name__, *arguments])
        command.main()
        return capsys.readouterr().out

    table = printed(zoo, 'mamba-vision')
    assert 'mask-rcnn_mamba-vision-t_fpn' in table and 'CC-BY-NC-SA-4.0' in table and 'yolov8' not in table
    with pytest.raises(InputError, match='no model and no weights have nothing-like-this'):
        printed(zoo, 'nothing-like-this')
    installation = printed(info)
    assert 'ss2d_scan' in installation and torch.__version__ in installation
    card = printed(info, 'mamba-yolo_t', '--shape', '64', '64')
    assert 'backbone' in card and 'bbox_head' in card and '44.5' in card
