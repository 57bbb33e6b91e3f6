from __future__ import annotations

from html.parser import HTMLParser

import pytest

from mmmamba.analysis.compare.report import Code, Document, Picture, Section, Text
from mmmamba.analysis.measure import Table

HOSTILE = '<script>alert("1")</script> a|b `c` *d* [e](f) _g_ h_i $j$ ~~k~~ & \\'


def test_markdown_takes_everything_literally():
    assert Text(HOSTILE).markdown() == (r'&lt;script&gt;alert("1")&lt;/script&gt; a\|b \`c\` \*d\* \[e\](f) \_g\_ h_i '
                                        r'\$j\$ \~\~k\~\~ &amp; \\')


@pytest.mark.parametrize('code, fence', [('a b', '```'), ('echo ```', '````'), ('`a`\nb', '```')])
def test_code_cannot_leave_its_fence(code, fence):
    assert Code(code).markdown() == f'{fence}bash\n{code}\n{fence}'


class Reader(HTMLParser):
    """Checks that elements are closed in order, and gathers what there is."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.seen, self.text = [], [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ('meta', 'img'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_html_takes_everything_literally():
    page = Document(HOSTILE, [Code(HOSTILE)], [Section(HOSTILE, [
        Text(HOSTILE), Table(('name', 'AP'), [[HOSTILE, '1']], words=('name', )), Picture('a.png', HOSTILE)])]).html()
    reader = Reader(page)
    assert reader.text.count(HOSTILE) == 6  # title, heading, code, heading, paragraph, cell
    tags = [tag for tag, _ in reader.seen]
    assert set(tags) == {'html', 'head', 'meta', 'title', 'style', 'body', 'main', 'h1', 'h2', 'p', 'pre', 'code',
                         'img', 'table', 'thead', 'tbody', 'tr', 'th', 'td'}
    assert ('img', {'src': 'a.png', 'alt': HOSTILE}) in reader.seen
    assert ('th', {'class': 'words'}) in reader.seen and ('th', {}) in reader.seen
