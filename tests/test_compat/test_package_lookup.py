from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import mmdet
import mmengine.config.config
import mmengine.utils
import pytest
from mmengine.config import Config

from mmmamba.compat import package_lookup


@pytest.fixture
def no_pkg_resources(monkeypatch: pytest.MonkeyPatch):
    """mmengine as it is where setuptools has no ``pkg_resources``; its functions come back after the test."""
    def find_spec(name: str) -> ModuleSpec | None:
        return None if name == 'pkg_resources' else real(name)

    real = package_lookup.find_spec
    monkeypatch.setitem(sys.modules, 'pkg_resources', None)
    monkeypatch.setattr(package_lookup, 'find_spec', find_spec)
    for module in package_lookup.HOLDERS:
        for name in ('is_installed', 'get_installed_path'):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(module, name))


def test_a_config_inherits_mmdets(no_pkg_resources: None, tmp_path: Path):
    config = tmp_path / 'config.py'
    config.write_text("_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'\n")
    with pytest.raises(ImportError):
        Config.fromfile(config)
    package_lookup.supply_package_lookup()
    assert Config.fromfile(config).model.backbone.depth == 18


def test_lookup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / 'a_namespace').mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert package_lookup.is_installed('mmdet')
    assert package_lookup.get_installed_path('mmdet') == str(Path(mmdet.__file__).parent)
    for missing in ('no_such_package', 'a_namespace'):
        assert not package_lookup.is_installed(missing)
        with pytest.raises(ModuleNotFoundError, match=missing):
            package_lookup.get_installed_path(missing)


def test_mmengine_keeps_its_own_where_that_works(monkeypatch: pytest.MonkeyPatch):
    real = package_lookup.find_spec
    monkeypatch.setattr(package_lookup, 'find_spec', lambda name: real('json' if name == 'pkg_resources' else name))
    before = mmengine.utils.is_installed, mmengine.config.config.is_installed
    package_lookup.supply_package_lookup()
    assert (mmengine.utils.is_installed, mmengine.config.config.is_installed) == before
