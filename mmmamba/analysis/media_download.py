"""Pictures and videos from addresses, brought into a folder of this machine."""
from __future__ import annotations

import base64
import re
import time
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from mmdet.utils.misc import IMG_EXTENSIONS

from mmmamba.errors import InputError

MAX_BYTES = 2**30
MAX_SECONDS = 600.0
_ANSWER_SECONDS = 30.0  # until a server answers, or sends more
_CHUNK = 2**20
_NAME_LENGTH = 100
# How files of pictures begin, and what they are called then, whatever the address says.
_PICTURES = ((b'\xff\xd8\xff', '.jpg'), (b'\x89PNG', '.png'), (b'BM', '.bmp'),
             (b'II*\0', '.tiff'), (b'MM\0*', '.tiff'))
_STREAMS = ('multipart/x-mixed-replace', 'application/vnd.apple.mpegurl', 'application/x-mpegurl', 'audio/mpegurl')


def is_address(word: str) -> bool:
    """Tells whether a source is on a web server."""
    return re.match(r'https?://', word, re.IGNORECASE) is not None


def without_password(address: str) -> str:
    """Returns an address without the user's name and password, for messages, files and their names."""
    return re.sub(r'^(\w+://)[^/]*@', r'\1', address)


def name_of_address(address: str) -> str:
    """Makes a file name of an address: the last part of its path, or else the server's name.

    Nothing that a file system could take for another folder, a hidden file or an option is left in it.
    """
    parts = urlsplit(without_password(address))
    name = unquote(parts.path).replace('\\', '/').rstrip('/').rpartition('/')[2]
    safe = re.sub(r'[^\w.-]+', '_', name).lstrip('.-_') or re.sub(r'[^\w-]+', '_', parts.netloc).lstrip('-_')
    stem, dot, ending = safe.rpartition('.')
    return f'{stem[:_NAME_LENGTH]}.{ending[:8]}' if dot else safe[:_NAME_LENGTH] or 'source'


def download(address: str, folder: Path) -> Path | None:
    """Downloads a picture or a video over http or https, with limits on size and time.

    Args:
        address: Where it is.
        folder: Where to write it; the folder should have nothing else in it.

    Returns:
        The file, which has a picture's ending exactly if it begins as one; None if the address sends an endless
        stream.

    Raises:
        InputError: The server cannot be reached, or has no such file, or one that is too large or takes too long.
    """
    shown, started = without_password(address), time.monotonic()
    try:
        with _opener().open(_request(address), timeout=_ANSWER_SECONDS) as answer:
            if answer.headers.get_content_type() in _STREAMS:
                return None
            name = name_of_address(answer.url)
            announced = int(answer.headers.get('Content-Length') or 0)
            path, received = folder / name, 0
            with open(path, 'wb') as file:
                while chunk := answer.read(_CHUNK):
                    received += len(chunk)
                    if max(received, announced) > MAX_BYTES:
                        raise InputError(f'{shown}: larger than {MAX_BYTES / 2**30:g} GiB; download it yourself')
                    if time.monotonic() - started > MAX_SECONDS:
                        raise InputError(f'{shown}: not received in {MAX_SECONDS:g} s; download it yourself')
                    file.write(chunk)
    except HTTPError as error:
        raise InputError(f'{shown}: the server says {error.code} {error.reason}') from error
    except URLError as error:
        raise InputError(f'{shown}: cannot be reached: {error.reason}') from error
    except (HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f'{shown}: cannot be downloaded: {error or type(error).__name__}') from error
    if received < announced:
        raise InputError(f'{shown}: the connection ended after {received} of {announced} bytes')
    return _with_true_ending(path)


def _request(address: str) -> Request:
    parts = urlsplit(address)
    request = Request(quote(without_password(address), safe="%/:?#[]@!$&'()*+,;=~"), headers={'User-Agent': 'mmmamba'})
    if parts.username:
        user = f'{unquote(parts.username)}:{unquote(parts.password or "")}'.encode()
        request.add_unredirected_header('Authorization', f'Basic {base64.b64encode(user).decode()}')
    return request


def _opener() -> OpenerDirector:
    """Makes what opens addresses: http and https alone, so that no redirection leads to a file of this machine."""
    opener = OpenerDirector()
    for kind in (ProxyHandler, HTTPHandler, HTTPSHandler, HTTPRedirectHandler, HTTPErrorProcessor,
                 HTTPDefaultErrorHandler, UnknownHandler):
        opener.add_handler(kind())
    return opener


def _with_true_ending(path: Path) -> Path:
    with open(path, 'rb') as file:
        start = file.read(16)
    ending = '.webp' if start[:4] == b'RIFF' and start[8:12] == b'WEBP' else next(
        (ending for begin, ending in _PICTURES if start.startswith(begin)), None)
    named_picture = path.suffix.lower() in IMG_EXTENSIONS
    if named_picture and not ending:
        return path.rename(path.with_name(f'{path.name}.bin'))
    return path if named_picture or not ending else path.rename(path.with_name(f'{path.name}{ending}'))
