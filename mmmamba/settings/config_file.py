"""Configs read from files, so that what a file sets at its top level holds where its base has used it already.

mmengine evaluates a base before the file that inherits it: in ::

    _base_ = 'mamba-yolo_t_1xb16-30e_bccd.py'
    data_root = 'mine/'

the base has put its own ``data_root`` into the data sets, and the new one is read by nothing. Here the base is changed
first, as if it had been written so, and the file is then evaluated on it: settings that it makes itself, in its data
loaders for instance, win as ever.
"""
from __future__ import annotations

import ast
import copy
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import mmdet
from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError

from mmmamba.errors import InputError, first_names, process_rank
from mmmamba.model_config import set_num_classes
from mmmamba.package_files import CONFIGS, find_config
from mmmamba.settings.data import with_data_root, with_metainfo
from mmmamba.settings.image_size import with_image_size
from mmmamba.settings.schedule import with_epochs

_FORMS: Mapping[str, tuple[str, Callable[[Any], bool]]] = MappingProxyType({
    'data_root': ('a folder, as text', lambda value: isinstance(value, str)),
    'metainfo': ("a dict, with a list of names as its 'classes'", lambda value: isinstance(value, dict) and (
        'classes' not in value or isinstance(value['classes'], (list, tuple)) and len(value['classes']) > 0)),
    'num_classes': ('a positive whole number', lambda value: type(value) is int and value > 0),
    'img_scale': ('a side in pixels, or (width, height)', lambda value: type(value) is int or isinstance(
        value, (list, tuple)) and [type(side) for side in value] == [int, int]),
    'max_epochs': ('a positive whole number', lambda value: type(value) is int and value > 0),
})
CARRIED = tuple(_FORMS)
"""Variables at the top level of a config that reach what it inherits."""
_SHIPPED = (CONFIGS, Path(mmdet.__file__).resolve().parent)
"""Folders of configs that set all places of a variable themselves."""
_PLAIN = (ast.Assign, ast.Name, ast.Call, ast.keyword, ast.Dict, ast.List, ast.Tuple, ast.Constant, ast.UnaryOp,
          ast.USub, ast.expr_context)
"""What the text of a config consists of that mmengine has written; its calls are of ``dict``."""
_OF_A_TEST = re.compile(r'\d{8}_\d{6}')
"""Names of the configs that tests leave in a work dir: the times at which they started."""


def load_config(name: str | Path) -> Config:
    """Reads a config, with what it sets at its top level carried over to what it inherits; one line says where.

    ``data_root``, ``metainfo``, ``num_classes``, ``img_scale`` (width, height) and ``max_epochs`` are carried over,
    also by the bases in between that are the user's own. Configs of this package and of mmdet are read as they are.

    Args:
        name: A file, or a name of ours (:func:`mmmamba.package_files.find_config`).

    Raises:
        InputError: There is no such config, it is not one of a detector, or a variable cannot be carried over.
    """
    path = find_config(name)
    try:
        raw, cfg = _load(path)
    except SyntaxError as error:
        raise InputError(f'{path}, or what it inherits, is not valid Python: {error.msg}, line {error.lineno}: '
                         f'{(error.text or "").strip()}') from error
    except ConfigParsingError as error:
        raise InputError(f'{path}: {error}') from error
    if 'model' not in cfg:
        raise InputError(f'{path} has no model: it is no config of a detector')
    if cfg is not raw:
        told = _carried(raw, cfg)
        if told and not process_rank():
            print(f'{path.name}: carried over to what it inherits: {"; ".join(told)}', file=sys.stderr, flush=True)
    return cfg


def config_next_to(checkpoint: str | Path) -> Path:
    """Returns the config that training has left in its work dir, next to its checkpoints.

    The config in the checkpoint itself is not used. A file of weights may come from anywhere, and a config is a
    program even where it is nothing but settings: some are evaluated as Python when the detector is built.

    Args:
        checkpoint: The file.

    Raises:
        InputError: There is no such file, or not one such config next to it.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise InputError(f'no such file: {checkpoint}')
    found = [file for file in sorted(path.absolute().parent.glob('*.py'))
             if not _OF_A_TEST.fullmatch(file.stem) and _is_left_by_training(file)]
    if len(found) == 1:
        return found[0]
    there = f'are {len(found)} ({first_names([file.name for file in found])})' if found else 'is none'
    raise InputError(f'{checkpoint} needs the config that training leaves next to it, and there {there}: name it, as '
                     'in mmmamba predict CONFIG CHECKPOINT SOURCE, or Detector(CONFIG, CHECKPOINT)')


def require_carried_over(cfg: Config) -> None:
    """Checks a config that is about to be run: was it read by :func:`load_config`, if that matters for its file?

    Raises:
        InputError: Its file sets a variable at its top level, and what it inherits still has the base's value.
    """
    path = Path(cfg.filename or '')
    if not path.is_file() or path.suffix != '.py' or _is_shipped(path) or not _bases(path):
        return
    raw, should = _load(path)
    if should is raw:
        return
    now, before, after = (dict(_leaves(config.to_dict())) for config in (cfg, raw, should))
    stale = [name for name in before
             if name in now and now[name] == before[name] and before[name] != after.get(name)
             and name.split('.')[0] in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg', 'model')]
    if stale:
        variables = ' and '.join(_carried(raw, should))
        raise InputError(f"{path} sets {variables} at its top level, but {stale[0]} is still its base's "
                         f'({now[stale[0]]!r}): run it with mmmamba train, or tools/train.py, which carry it over, or '
                         'set this too')


def _load(path: Path) -> tuple[Config, Config]:
    """Reads a config as mmengine does, and as :func:`load_config`: the same object where that makes no difference."""
    cfg = Config.fromfile(path)
    if _is_shipped(path) or path.suffix != '.py':
        return cfg, cfg
    names = _bases(path)
    users = [name for name in names if '::' not in name and not _is_shipped(Path(name))]
    if not names or not (users or any(name in cfg for name in CARRIED)):
        return cfg, cfg
    base = inherited = Config.fromstring(f'_base_ = {names!r}', '.py')
    for name in users:
        raw, carried = _load(Path(name))
        if carried is not raw:
            base = copy.deepcopy(base)
            base._cfg_dict.update(carried._cfg_dict)
    for name in CARRIED:
        if name in cfg and inherited.get(name) != cfg[name]:
            base = _with_variable(base, name, cfg[name])
    if base is inherited:
        return cfg, cfg
    return cfg, Config(_evaluated_on(path, base).to_dict(), cfg_text=cfg.text, filename=path)


def _with_variable(base: Config, name: str, value: Any) -> Config:
    """Returns a base as if it had been written with another value of a variable."""
    form, fits = _FORMS[name]
    if not fits(value):
        raise InputError(f'{name} = {value!r} at the top level of the config must be {form}')
    base = copy.deepcopy(base)
    loaders = any(base.get(loader) for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'))
    try:
        if name == 'data_root' and loaders:
            base = with_data_root(base, value)
        elif name == 'metainfo' and loaders:
            base = with_metainfo(base, dict(value))
        elif name == 'num_classes' and 'model' in base:
            set_num_classes(base.model, value)
        elif name == 'img_scale' and base.get('test_dataloader'):
            width, height = (value, value) if isinstance(value, int) else value
            base = with_image_size(base, width, height)
        elif name == 'max_epochs' and base.get('train_cfg'):
            base = with_epochs(base, value)
    except (AttributeError, TypeError, ValueError) as error:  # InputErrors among them
        raise InputError(f'{name} = {value!r} at the top level of the config: {error}') from error
    base[name] = value
    return base


def _evaluated_on(path: Path, base: Config) -> Config:
    """Evaluates a file on a config instead of its ``_base_``."""
    with tempfile.TemporaryDirectory() as folder:
        inherited, heir = Path(folder, 'inherited', 'base.py'), Path(folder, path.name)
        inherited.parent.mkdir()
        text = '\n'.join(f'{key} = {value!r}' for key, value in base.to_dict().items())
        inherited.write_text(text, encoding='utf-8')
        Config._substitute_predefined_vars(str(path), str(heir))  # {{ fileDirname }} and the like
        lines = heir.read_text(encoding='utf-8').splitlines()
        statement = _base_statement(path)
        assert statement is not None and statement.end_lineno is not None
        lines[statement.lineno - 1:statement.end_lineno] = [
            f'_base_ = {str(inherited)!r}', *[''] * (statement.end_lineno - statement.lineno)]
        heir.write_text('\n'.join(lines), encoding='utf-8')
        try:
            ast.parse(text)
        except SyntaxError as error:  # an object that has no text
            raise InputError(f'{path}: its base cannot be written as text, so that what it sets at its top level '
                             'cannot be carried over: set it in the data loaders, the model and train_cfg') from error
        return Config.fromfile(heir)


def _carried(raw: Config, cfg: Config) -> list[str]:
    """Names the variables that were carried over, and the number of places that each has reached."""
    before, after = (dict(_leaves(config.to_dict())) for config in (raw, cfg))
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    used = [name for name in changed if name.split('.')[0].endswith(('_dataloader', '_evaluator', '_cfg', '_hooks'))
            or name.startswith(('model.', 'param_scheduler', 'tta_pipeline'))]
    if not used:
        return []
    return [f'{name} = {_short(cfg[name])}' for name in CARRIED if name in cfg and _has_part(name, used)]


def _has_part(variable: str, places: list[str]) -> bool:
    """Tells whether places are among what a variable reaches."""
    words = {
        'data_root': ('data_root', 'ann_file'),
        'metainfo': ('metainfo',),
        'num_classes': ('num_classes',),
        'img_scale': ('scale', 'size', 'border'),
        'max_epochs': ('max_epochs',),
    }[variable]
    return any(word in place for place in places for word in words)


def _short(value: Any) -> str:
    classes = value.get('classes') if isinstance(value, dict) else None
    return f'{len(classes)} class{"es" if len(classes) > 1 else ""}' if classes else repr(value)


def _leaves(value: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    """Yields dotted names and values of all that has no parts."""
    if isinstance(value, dict) and value:
        pairs: Any = value.items()
    elif isinstance(value, (list, tuple)) and value:
        pairs = enumerate(value)
    else:
        yield name, value
        return
    for key, inner in pairs:
        yield from _leaves(inner, f'{name}.{key}' if name else str(key))


def _is_shipped(path: Path) -> bool:
    resolved = path.resolve()
    return any(folder in resolved.parents for folder in _SHIPPED)


def _bases(path: Path) -> list[str]:
    """Returns a file's bases: those of other packages as they are, files by their whole path."""
    statement = _base_statement(path)
    if statement is None:
        return []
    value = eval(compile(ast.Expression(statement.value), str(path), 'eval'), {})  # as mmengine has done before
    return [name if '::' in name else str((path.parent / name).resolve())
            for name in ([value] if isinstance(value, str) else value)]


def _is_left_by_training(path: Path) -> bool:
    """Tells whether a file is a whole config of plain settings, as mmengine writes it, and nothing else."""
    try:
        statements = ast.parse(path.read_text(encoding='utf-8')).body
    except (OSError, SyntaxError, ValueError):
        return False
    nodes = [node for statement in statements for node in ast.walk(statement)]
    calls = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    assigned = {ast.unparse(target) for node in statements if isinstance(node, ast.Assign) for target in node.targets}
    return (all(isinstance(node, _PLAIN) for node in nodes) and calls <= {'dict'}
            and {'model', 'test_dataloader'} <= assigned)


def _base_statement(path: Path) -> ast.Assign | None:
    # What mmengine replaces, {{ _base_.x }} or {{ fileDirname }}, is a set in a set for the parser, on one line.
    for statement in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(statement, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == '_base_' for target in statement.targets):
            return statement
    return None
