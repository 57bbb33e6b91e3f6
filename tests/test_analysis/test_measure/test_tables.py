"""One table, as text, markdown and HTML."""
from __future__ import annotations

import pytest

from mmmamba.analysis.measure import Table

TABLE = Table(('name', 'AP'), [['a|b', '1.5'], ['two\nlines', '12']], words=('name',))


def test_markdown_keeps_its_columns():
    assert TABLE.markdown() == '| name | AP |\n| --- | ---: |\n| a\\|b | 1.5 |\n| two lines | 12 |'
    assert TABLE.markdown(aligned=True).splitlines() == [
        '| name      |  AP |', '| --------- | --: |', '| a\\|b      | 1.5 |', '| two lines |  12 |']


def test_html_says_which_columns_are_words():
    page = TABLE.html()
    assert '<th class="words">name</th><th>AP</th>' in page and '<td class="words">a|b</td><td>1.5</td>' in page


def test_text_has_words_on_the_left_and_numbers_on_the_right():
    table = Table(('', 'FLOPs'), [['backbone', '2'], ['neck', '13.5']], words=('',))
    assert table.text().splitlines() == ['          FLOPs', 'backbone      2', 'neck       13.5']


@pytest.mark.parametrize('value, cell', [(1 / 3, '0.3333'), (12345.678, '12345.678'), (7, '7'), ('x', 'x')])
def test_records_become_rows_of_all_their_columns(value, cell):
    table = Table.of_records([{'a': value}, {'b': 1, 'a': 2}])
    assert table.header == ['a', 'b'] and table.rows == [[cell, ''], ['2', '1']]
