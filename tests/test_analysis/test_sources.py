"""What sources of a prediction are found under which names, and what is downloaded: from a server on this machine."""
from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmmamba.analysis import media_download
from mmmamba.analysis.media_download import download, name_of_address, without_password
from mmmamba.analysis.sources import find_sources
from mmmamba.errors import InputError

JPEG = cv2.imencode('.jpg', np.full((24, 32, 3), 90, np.uint8))[1].tobytes()
ANSWERS = {
    '/a.jpg': ('image/jpeg', JPEG),
    '/picture': ('image/jpeg', JPEG),
    '/x/a.jpg': ('image/jpeg', JPEG),
    '/page.jpg': ('text/html', b'<html>not found, says a page</html>'),
    '/..%2f..%2fetc%2fpasswd.png': ('image/png', cv2.imencode('.png', np.zeros((8, 8, 3), np.uint8))[1].tobytes()),
    '/cam': ('multipart/x-mixed-replace; boundary=frame', b''),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition('?')[0]
        if path == '/moved':
            self.send_response(302)
            self.send_header('Location', 'file:///etc/passwd')
            self.end_headers()
        elif path == '/short.jpg':
            self._send('image/jpeg', JPEG, announced=len(JPEG) + 10)
        elif path == '/secret.jpg' and self.headers.get('Authorization') != 'Basic YW5uOnNlY3JldA==':
            self.send_error(401)
        elif path in ANSWERS or path == '/secret.jpg':
            self._send(*ANSWERS.get(path, ANSWERS['/a.jpg']))
        else:
            self.send_error(404)

    def _send(self, kind: str, content: bytes, announced: int | None = None) -> None:
        self.send_response(200)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(content) if announced is None else announced))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope='module')
def server() -> Iterator[str]:
    """Address of the server."""
    running = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=running.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True).start()
    yield f'http://127.0.0.1:{running.server_port}'
    running.shutdown()
    running.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of several kinds, in folders."""
    for name in ('in/1.jpg', 'in/1.PNG', 'in/more/1.jpg', 'in/more/0.jpg', 'in/notes.txt', 'in/a[1].jpg', 'in/0'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'words' if path.suffix == '.txt' else JPEG)
    (tmp_path / 'downloads').mkdir()
    return tmp_path


def found(folder: Path, *words: object) -> list[tuple[str, str]]:
    """Names and places of the images."""
    sources = find_sources([*map(str, words)], folder / 'downloads')
    return [(source.name, source.path.name) for source in sources.images]


def test_outputs_of_equal_names_get_numbers(folder: Path) -> None:
    names = [name for name, _ in found(folder, folder / 'in' / '1.jpg', folder / 'in', f'{folder}/in/**/1.jpg')]
    assert sorted(names) == ['1.jpg', '1_2.PNG', '1_3.jpg', '1_4.jpg', '1_5.jpg', 'a[1].jpg']


def test_patterns_files_with_signs_in_their_names_and_what_is_left_out(folder: Path) -> None:
    assert found(folder, f'{folder}/in/**/*.jpg') == [
        ('1.jpg', '1.jpg'), ('a[1].jpg', 'a[1].jpg'), ('0.jpg', '0.jpg'), ('1_2.jpg', '1.jpg')]
    assert found(folder, folder / 'in' / 'a[1].jpg') == [('a[1].jpg', 'a[1].jpg')]
    sources = find_sources([f'{folder}/in/*', 'absent.jpg'], folder / 'downloads')
    assert [message.partition(': ')[0] for message in sources.ignored] == [
        f'{folder}/in/0', f'{folder}/in/more', f'{folder}/in/notes.txt']
    assert sources.failed == ['absent.jpg: no such file or folder']


def test_a_pattern_in_quotes_begins_at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', str(folder))
    assert found(folder, '~/in/more/*.jpg') == [('0.jpg', '0.jpg'), ('1.jpg', '1.jpg')]


@pytest.mark.parametrize('word, message', [
    ('absent.jpg', 'no such file or folder'),
    ('{folder}/*.webp', 'no image or video has such a name'),
    ('ftp://ann:secret@host/a.jpg', 'ftp://host/a.jpg: an address must begin with http'),
    ('{folder}/in/notes.txt', 'not readable as an image or a video'),
    ('{server}/none.jpg', 'the server says 404'),
    ('{server}/page.jpg', 'not readable as an image or a video'),
    ('{server}/short.jpg', 'bytes'),
    ('{server}/moved', '302'),
    ('http://127.0.0.1:1/a.jpg', 'cannot be reached'),
    ('http://a:b:c/a.jpg', 'cannot be downloaded'),
])
def test_what_cannot_be_used_is_one_line(folder: Path, server: str, word: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        find_sources([word.format(folder=folder, server=server)], folder / 'downloads')
    assert 'secret' not in str(error.value) and str(folder / 'downloads') not in str(error.value)


def test_two_sources_without_an_end_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match='name one a call'):
        find_sources(['0', 'rtsp://ann:secret@host/street'], folder / 'downloads')
    sources = find_sources(['rtsp://ann:secret@host:554/street.sdp'], folder / 'downloads')
    assert [(live.given, live.name) for live in sources.live] == [('rtsp://host:554/street.sdp', 'street_sdp')]
    assert sources.live[0].place == 'rtsp://ann:secret@host:554/street.sdp'


def test_pictures_from_addresses(folder: Path, server: str) -> None:
    words = ['/a.jpg', '/x/a.jpg?size=1', '/picture', '/..%2f..%2fetc%2fpasswd.png']
    assert [name for name, _ in found(folder, *(server + word for word in words))] == [
        'a.jpg', 'a_2.jpg', 'picture.jpg', 'passwd.png']
    assert all(folder / 'downloads' in path.parents for path in (folder / 'downloads').rglob('*.png'))


def test_a_stream_is_not_downloaded(folder: Path, server: str) -> None:
    sources = find_sources([f'{server}/cam'], folder / 'downloads')
    assert [(live.place, live.name) for live in sources.live] == [(f'{server}/cam', 'cam')]


def test_a_password_is_used_and_not_shown(folder: Path, server: str) -> None:
    address = server.replace('http://', 'http://ann:secret@') + '/secret.jpg'
    source, = find_sources([address], folder / 'downloads').images
    assert source.given == f'{server}/secret.jpg' == without_password(address)


@pytest.mark.parametrize('limit, message', [('MAX_BYTES', 'larger than'), ('MAX_SECONDS', 'not received in')])
def test_downloads_have_limits(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, limit: str,
                               message: str) -> None:
    monkeypatch.setattr(media_download, limit, -1)
    with pytest.raises(InputError, match=message):
        download(f'{server}/a.jpg', tmp_path)


@pytest.mark.parametrize('address, name', [
    ('https://host/a/b%20c.jpg?x=1', 'b_c.jpg'), ('https://host:80/', 'host_80'), ('https://host/..', 'host'),
    ('https://host/a%5c..%5c.bashrc', 'bashrc'), ('https://host/-rf.png', 'rf.png'), ('http://u:p@host', 'host'),
    (f'https://host/{"n" * 300}.jpg', f'{"n" * 100}.jpg'),
])
def test_names_from_addresses_are_harmless(address: str, name: str) -> None:
    assert name_of_address(address) == name
