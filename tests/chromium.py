"""Headless Chromium over the DevTools protocol's pipe, without any package."""
from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a plain static host: none of its headers is special."""
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f'http://127.0.0.1:{server.server_port}/'
    finally:
        server.shutdown()
        server.server_close()


class Page:
    """A tab."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = reader, writer
        self._number, self._buffer = 0, b''
        self.errors: list[str] = []  # what the console was told
        self._session: str | None = None
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self._session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'DOM', 'Log'):
            self.call(f'{domain}.enable')

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {'id': self._number, 'method': method, 'params': params}
        if self._session:
            message['sessionId'] = self._session
        os.write(self._writer, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._read()
            if answer.get('id') == self._number:
                if 'error' in answer:
                    raise RuntimeError(f'{method}: {answer["error"]["message"]}')
                return answer['result']
            found = answer.get('params', {})
            if answer.get('method') == 'Runtime.exceptionThrown':
                self.errors.append(found['exceptionDetails'].get('exception', {}).get('description', 'exception'))
            elif answer.get('method') == 'Log.entryAdded' and found['entry']['level'] == 'error':
                self.errors.append(found['entry']['text'])

    def _read(self) -> dict[str, Any]:
        while b'\0' not in self._buffer:
            if not select.select([self._reader], [], [], 60)[0]:
                raise TimeoutError('Chromium does not answer')
            part = os.read(self._reader, 1 << 20)
            if not part:
                raise RuntimeError('Chromium ended')
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b'\0')
        return json.loads(line)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        answer = self.call('Runtime.evaluate', expression=expression, awaitPromise=True, returnByValue=True)
        if 'exceptionDetails' in answer:
            raise RuntimeError(answer['exceptionDetails']['exception'].get('description'))
        return answer['result'].get('value')

    def wait(self, expression: str, seconds: float = 60) -> Any:
        """Waits until an expression is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if value := self.run(expression):
                    return value
            except RuntimeError:  # the page is being loaded anew
                pass
            time.sleep(0.05)
        raise TimeoutError(f'{expression}; the page says: {self.run("document.body.innerText")} {self.errors}')

    def choose_file(self, selector: str, path: Path) -> None:
        root = self.call('DOM.getDocument')['root']['nodeId']
        node = self.call('DOM.querySelector', nodeId=root, selector=selector)['nodeId']
        self.call('DOM.setFileInputFiles', nodeId=node, files=[str(path)])


@contextmanager
def opened(chromium: str, *options: str) -> Iterator[Page]:
    """A new Chromium with a blank tab."""
    from_us, to_us, profile = os.pipe(), os.pipe(), tempfile.mkdtemp()
    # Chromium reads descriptor 3 and writes 4.
    process = subprocess.Popen(
        ['bash', '-c', f'exec "$@" 3<&{from_us[0]} 4>&{to_us[1]}', 'bash', chromium, '--headless', '--no-sandbox',
         '--remote-debugging-pipe', '--no-first-run', f'--user-data-dir={profile}', *options],
        pass_fds=(from_us[0], to_us[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(from_us[0])
    os.close(to_us[1])
    try:
        yield Page(to_us[0], from_us[1])
    finally:
        process.kill()
        process.wait()
        os.close(from_us[1])
        os.close(to_us[0])
        shutil.rmtree(profile, ignore_errors=True)
