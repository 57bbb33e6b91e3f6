"""Files from the network: downloaded once, whole or not at all."""
from __future__ import annotations

import hashlib
import os
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import urlretrieve

import torch
from mmengine.dist import barrier
from mmengine.logging import print_log

from mmmamba.errors import InputError


def local_file(name: str) -> Path:
    """Returns a file itself, or what an address is downloaded to: a file in PyTorch's folder of checkpoints.

    Of several processes on a machine, the first downloads and the others wait.

    Args:
        name: A path, or an HTTP address.

    Raises:
        InputError: It is another kind of address, or cannot be downloaded.
    """
    if '://' not in name:
        return Path(name).expanduser()
    if not name.lower().startswith(('http://', 'https://')):
        raise InputError(f'{name} is neither a file nor an HTTP address')
    try:
        last = Path(unquote(urlsplit(name).path)).name
    except ValueError as error:
        raise InputError(f'{name} is no address: {error}') from error
    tag = hashlib.sha256(name.encode()).hexdigest()[:8]  # two addresses may end in the same name
    path = Path(torch.hub.get_dir(), 'checkpoints', f'{tag}-{last}')
    if int(os.environ.get('LOCAL_RANK', 0)) == 0 and not path.exists():  # for all processes of the machine
        _download(name, path)
    barrier()
    return path


def _download(address: str, path: Path) -> None:
    """Downloads a file, which appears whole or not at all."""
    print_log(f'downloading {address} to {path}', logger='current')
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        urlretrieve(address, part)  # it fails when less has come than was announced
        part.replace(path)
    except (OSError, HTTPException, ValueError) as error:
        raise InputError(f'cannot download {address}: {error}; without a network, name a file instead') from error
    finally:
        part.unlink(missing_ok=True)
