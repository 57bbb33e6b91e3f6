"""Files are complete, and JSON is what the standard calls so."""
from __future__ import annotations

import json
import math

import numpy as np
import pytest

from mmmamba.files import from_here, write_json

NAN, INFINITY = math.nan, math.inf


def refuse(constant: str):
    raise AssertionError(f'{constant} is no JSON')


@pytest.mark.parametrize('content, read', [
    ({'AP': NAN, 'AP50': 0.5}, {'AP': None, 'AP50': 0.5}),
    ([INFINITY, -INFINITY, 1, True, None, 'NaN'], [None, None, 1, True, None, 'NaN']),
    ({'a': {'b': (1.0, NAN)}}, {'a': {'b': [1.0, None]}}),
    ({'a': np.float64('nan'), 'b': np.float64(0.25)}, {'a': None, 'b': 0.25}),
    ({}, {}),
])
@pytest.mark.parametrize('indent', [None, 2])
def test_what_is_no_number_becomes_null(content, read, indent, tmp_path):
    path = tmp_path / 'folder/file.json'
    write_json(path, content, indent)
    assert json.loads(path.read_text(), parse_constant=refuse) == read
    assert [file.name for file in path.parent.iterdir()] == ['file.json']


def test_paths_are_shown_as_they_are_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert from_here(tmp_path / 'runs' / 'a.pth') == 'runs/a.pth' == from_here('runs/a.pth')
    assert from_here(tmp_path.parent / 'a.pth') == str(tmp_path.parent / 'a.pth')
