"""Python of the documents runs: a document's blocks one after the other, in one namespace with small stand-ins.

A block that sets ``_base_`` or ``model`` is a config: it is read, and its model is built (without values). One that
only has arguments, such as ``backbone=dict(…),``, is part of a model. A block that begins with ``# NAME.py`` is a file
of that name, which later blocks can import. What needs more than the stand-ins below is marked, as commands are
(``test_document_commands.py``).
"""
from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from unittest import mock

import pytest
import small_detector
import torch
from documents import ROOT, Block, blocks, documents
from mmdet.registry import MODELS
from mmengine.config import Config

HELP = 'let it run with the stand-ins of tests/test_document_python.py, or mark it: <!-- not run: why -->'


def stand_ins() -> dict[str, object]:
    """What documents take for granted: torch, a detector, and the tensors of a scan."""
    channels, states, rank, directions, steps = 4, 2, 1, 4, 6
    sequence, weights = torch.rand(1, channels, steps), torch.rand(1, 1, states, steps)
    return {
        'torch': torch, 'model': small_detector.build(),
        'x': torch.rand(1, channels, 2, 3), 'x_proj_weight': torch.rand(directions, rank + 2 * states, channels),
        'dt_projs_weight': torch.rand(directions, channels, rank), 'dt_projs_bias': torch.rand(directions, channels),
        'A_logs': torch.zeros(directions * channels, states), 'Ds': torch.ones(directions * channels),
        'u': sequence, 'delta': sequence, 'A': -torch.rand(channels, states), 'B': weights, 'C': weights,
        'D': torch.ones(channels), 'z': sequence, 'delta_bias': torch.zeros(channels)}


def build_parts(parts: dict) -> None:
    for part in parts.values():
        with torch.device('meta'):
            MODELS.build({key: value for key, value in part.items() if key != '_delete_'})


def read_config(block: Block, folder: Path) -> None:
    """Reads a config, with bases that are beside the document or in the root, and builds its model."""
    def base(found: re.Match[str]) -> str:
        beside = (ROOT / block.document).parent / found[1]
        return repr(str(beside if beside.is_file() else ROOT / found[1]))

    path = folder / 'config.py'
    path.write_text(re.sub(r"'(\./[^']+\.py)'", base, block.text), encoding='utf-8')
    config = Config.fromfile(path)
    if 'type' in config.model:
        with torch.device('meta'):
            MODELS.build(config.model)


def run(block: Block, namespace: dict[str, object], folder: Path) -> None:
    try:
        names = {target.id for node in ast.parse(block.text).body if isinstance(node, ast.Assign)
                 for target in node.targets if isinstance(target, ast.Name)}
    except SyntaxError:
        names = set()
    file = re.match(r'# (\w+\.py)\n', block.text)
    if {'_base_', 'custom_imports'} & names or (names == {'model'} and 'dict(' in block.text):
        read_config(block, folder)
    elif re.match(r'\w+=dict\(', block.text):
        build_parts(eval(f'dict({block.text})', {}))
    elif file:
        (folder / file[1]).write_text(block.text, encoding='utf-8')
    else:
        exec(compile(block.text, str(block), 'exec'), namespace)


@pytest.fixture(autouse=True)
def separate_documents(tmp_path, monkeypatch):
    """Files that a document writes can be imported; what they register is forgotten."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(MODELS._module_dict):
        yield
    for name, module in list(sys.modules.items()):
        if (getattr(module, '__file__', None) or '').startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize('name', [name for name in documents() if any(b.language == 'python' for b in blocks(name))])
def test_python_runs(name, tmp_path, mmdet_scope):
    namespace = stand_ins()
    for block in blocks(name):
        if block.language == 'python' and not block.mark:
            try:
                run(block, namespace, tmp_path)
            except Exception as error:
                pytest.fail(f'{block}: {type(error).__name__}: {error}; {HELP}')


def test_the_backbone_of_the_page_is_a_backbone(mmdet_scope):
    written, *_ = (block for block in blocks('docs/add_a_backbone.md') if block.language == 'python')
    namespace: dict[str, type] = {}
    exec(compile(written.text, str(written), 'exec'), namespace)
    backbone = namespace['MyBackbone'](frozen_stages=1)
    maps = backbone(torch.rand(1, 3, 63, 96))
    assert [tuple(each.shape) for each in maps] == [(1, 64, 8, 12), (1, 128, 4, 6), (1, 256, 2, 3)]
    sum(each.mean() for each in maps).backward()
    for name, parameter in backbone.named_parameters():
        assert (parameter.grad is not None) != name.startswith(('stem.', 'stages.0.')), name
