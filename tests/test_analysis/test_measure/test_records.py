"""Rows and where they were measured, as far as PyTorch alone can tell."""
from __future__ import annotations

import platform

import pytest
import torch

from mmmamba.analysis.measure.records import (
    ENVIRONMENT,
    cpu_flags,
    cpu_name,
    csv_text,
    environment,
    read_csv,
    write_csv,
)
from mmmamba.errors import InputError

CPUINFO = """processor\t: 0
model\t\t: 2
model name\t: AMD  EPYC 9654
processor\t: 1
model name\t: AMD  EPYC 9654
"""


@pytest.mark.parametrize('text, name', [(CPUINFO, 'AMD EPYC 9654'), ('processor\t: 0\n', platform.machine()),
                                        (None, platform.machine())])
def test_name_of_the_cpu(monkeypatch, tmp_path, text, name):
    path = tmp_path / 'cpuinfo'
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr('mmmamba.analysis.measure.records._CPUINFO', path)
    assert cpu_name() == name
    assert environment('cpu', 1)['device'].startswith(f'cpu {name}')


@pytest.mark.parametrize('text, flags', [
    ('flags\t\t: fpu amx_bf16 avx512f_other  avx2\nvmx flags\t: avx512f\n', 'avx2 amx_bf16'),
    ('flags\t\t:\nbugs\t\t: avx2\n', ''), (CPUINFO, ''), (None, '')])
def test_instruction_sets_of_the_cpu(monkeypatch, tmp_path, text, flags):
    path = tmp_path / 'cpuinfo'
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr('mmmamba.analysis.measure.records._CPUINFO', path)
    assert cpu_flags(['avx2', 'avx512f', 'amx_bf16']) == flags


def test_the_gpu_that_was_meant(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: f'GPU {torch.device(device).index}')
    assert environment('cuda:1', 2)['device'] == 'GPU 1'


def test_names_and_versions():
    where = environment('cpu', 3)
    assert tuple(where) == ENVIRONMENT
    assert (where['threads'], where['torch']) == ('3', torch.__version__)


def test_rows_come_back_as_text_and_what_a_row_lacks_is_empty(tmp_path):
    rows = [{'a': 1, 'b': 'x,\n"y"'}, {'b': 2.5, 'c': None}]
    path = tmp_path / 'new' / 'rows.csv'
    write_csv(path, rows)
    assert read_csv(path, ('a', 'b', 'c')) == [
        {'a': '1', 'b': 'x,\n"y"', 'c': ''}, {'a': '', 'b': '2.5', 'c': ''}]
    assert csv_text([], ('a', 'b')) == 'a,b\n'


@pytest.mark.parametrize('columns', [('a',), ('b', 'a'), ('a', 'b', 'c')])
def test_a_file_of_other_columns_is_refused(tmp_path, columns):
    write_csv(tmp_path / 'rows.csv', [{'a': 1, 'b': 2}])
    with pytest.raises(InputError, match='rows.csv .*its columns differ'):
        read_csv(tmp_path / 'rows.csv', columns)
