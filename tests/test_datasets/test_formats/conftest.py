from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmmamba.datasets.formats import find_data
from mmmamba.errors import InputError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test."""
    folder = tmp_path_factory.mktemp('cache')
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder))
    return folder / 'mmmamba' / 'datasets'


@pytest.fixture
def mistake() -> Callable[[Path, str, str | bytes], str]:
    """A function that replaces a file of a data set, and returns the one line that ``find_data`` says to that."""
    def of(root: Path, file: str, content: str | bytes) -> str:
        (root / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(InputError) as caught:
            find_data(root)
        assert '\n' not in str(caught.value)
        return str(caught.value)
    return of
