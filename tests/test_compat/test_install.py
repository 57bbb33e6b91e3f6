"""What ``install`` does to a fresh interpreter, beside mmcv-lite and beside full mmcv."""
from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import mmcv
import pytest
import torch

import mmmamba  # noqa: F401  (supplies mmcv's operators)
from mmmamba import compat
from mmmamba.compat.mmcv_ext import MMCVExtension


def run(code: str, *path: Path) -> str:
    """Run Python code in a fresh interpreter, with folders put first on its path; return what it prints."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, path)))
    command = [sys.executable, '-W', 'ignore', '-c', code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    # OneDL's mmdet says at every import that its own kind of data set is not installed.
    return '\n'.join(line for line in result.stdout.splitlines() if not line.startswith('Could not import OneDL'))


def operator_names() -> set[str]:
    """All names that mmcv's sources ask the extension for."""
    calls = (node for file in (Path(mmcv.__file__).parent / 'ops').glob('*.py')
             for node in ast.walk(ast.parse(file.read_text(encoding='utf-8')))
             if isinstance(node, ast.Call) and getattr(node.func, 'attr', '') == 'load_ext')
    return {name for call in calls for name in ast.literal_eval(call.args[1])}


def test_every_operator_that_mmcv_asks_for_resolves():
    names = operator_names()
    assert len(names) > 100
    extension = MMCVExtension()
    assert all(callable(getattr(extension, name)) for name in names)


def test_an_operator_not_supplied_says_so_when_called():
    from mmcv.ops import DeformConv2d
    layer = DeformConv2d(2, 2, 3, padding=1)
    with pytest.raises(NotImplementedError, match="'deform_conv_forward' needs .* full mmcv"):
        layer(torch.randn(1, 2, 8, 8), torch.randn(1, 18, 8, 8))


def test_private_names_do_not_resolve():
    assert not hasattr(MMCVExtension(), '__path__')
    assert not hasattr(MMCVExtension(), '_nms')


def test_installing_twice_changes_nothing():
    extension = sys.modules['mmcv._ext']
    allowed = set(torch.serialization.get_safe_globals())
    compat.install()
    assert sys.modules['mmcv._ext'] is extension
    assert set(torch.serialization.get_safe_globals()) == allowed


def test_mmengine_sees_that_nothing_is_compiled():
    from mmengine.utils.dl_utils import mmcv_full_available
    assert find_spec('mmcv._ext').loader is None
    assert not mmcv_full_available()


def test_environment_report():
    from mmcv.utils.env import collect_env
    assert 'mmcv-lite' in collect_env()['MMCV Compiler']


def test_mmdet_imports_once_mmmamba_is():
    """Without it, mmcv names what is missing; the failed import does not stick."""
    printed = run("""
try:
    import mmcv.ops
except ModuleNotFoundError as error:
    print(error)
import mmmamba, mmcv.ops, mmdet.models, mmdet.apis
from mmdet.apis import DetInferencer
from mmmamba import Detector
print('fine' if issubclass(Detector, DetInferencer) else Detector)""")
    assert printed.splitlines() == ["No module named 'mmcv._ext'", 'fine']


def test_full_mmcv_is_untouched(tmp_path: Path):
    """mmcv with a module ``_ext`` of its own: the real package's files, linked beside one that stands for it."""
    package = tmp_path / 'mmcv'
    package.mkdir()
    for file in Path(mmcv.__file__).parent.iterdir():
        (package / file.name).symlink_to(file)
    (package / '_ext.py').write_text("""
def __getattr__(name):
    if name.startswith('_'):
        raise AttributeError(name)
    return lambda *args, **kwargs: f'compiled {name}'
""")
    printed = run("""
import sys
import mmmamba, mmdet.models, mmcv._ext
from mmengine.utils.dl_utils import mmcv_full_available
print(mmcv._ext.__file__)
print(sys.modules['mmcv.ops.nms'].ext_module is mmcv._ext, mmcv._ext.nms(), mmcv_full_available())""", tmp_path)
    assert printed.splitlines() == [str(package / '_ext.py'), 'True compiled nms True']


def test_without_mmcv_nothing_is_supplied(monkeypatch: pytest.MonkeyPatch):
    """The import error is then mmdet's own."""
    monkeypatch.setattr(compat, 'find_spec', lambda name: None)
    monkeypatch.delitem(sys.modules, 'mmcv._ext')
    compat.install()
    assert 'mmcv._ext' not in sys.modules
