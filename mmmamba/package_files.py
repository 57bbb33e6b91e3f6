"""The configs and tools that come with the package, and configs by short name."""
from __future__ import annotations

import re
from pathlib import Path

from mmmamba.errors import InputError, did_you_mean, first_names

_PACKAGE = Path(__file__).resolve().parent
# In a clone they are beside the package, in a wheel where MIM looks for them.
_ROOT = _PACKAGE / '.mim' if (_PACKAGE / '.mim' / 'configs').is_dir() else _PACKAGE.parent
CONFIGS = (_ROOT / 'configs').resolve()
"""The folder of configs."""
TOOLS = (_ROOT / 'tools').resolve()
"""The folder of tools: ``train.py``, ``test.py`` and others."""
_ENDINGS = ('.py', '.yaml', '.yml', '.json')
# As in mamba-yolo_t_8xb64-300e_coco, mask-rcnn_vmamba-t_fpn_1x_coco.
_RECIPE = re.compile(r'_(\d+xb\d+[^_]*|\d+x|amp-[^_]+|ms-crop-[^_]+|demo)(_[^_]+)?$')


def find_config(name: str | Path) -> Path:
    """Returns the file of a config.

    Args:
        name: A file; or a name in ``configs/``: that of a file, with or without its ending, or the part before the
            recipe, such as ``mamba-yolo_t`` for ``mamba-yolo_t_8xb64-300e_coco.py``. Of several with such a name,
            COCO's is meant.

    Raises:
        InputError: There is neither a file nor one config of that name (the line names those that are close), or the
            file is of another kind.
    """
    if Path(name).is_file() and Path(name).suffix:
        if Path(name).suffix not in _ENDINGS:
            raise InputError(f'{name} is no config, which ends with {", ".join(_ENDINGS)}')
        return Path(name)
    text = str(name)
    ours = {path.stem: path for path in sorted(CONFIGS.glob('[!_]*/**/*.py'))}
    stem = text.removesuffix('.py')
    if stem in ours:
        return ours[stem]
    named = [path for path in ours.values() if model_name(path) == stem]
    on_coco = [path for path in named if path.stem.endswith('_coco')]
    for candidates in (on_coco, named):
        if len(candidates) == 1:
            return candidates[0]
    if named:
        raise InputError(f'{text} is the name of {len(named)} configs: {first_names([path.stem for path in named])}')
    hint = did_you_mean(stem, {*ours, *map(model_name, ours.values())})
    if hint:
        raise InputError(f'{text}: no such file, and no config of that name{hint}')
    raise InputError(f'no such file: {text}')


def model_name(config: Path) -> str:
    """Returns the name of a config's file without the recipe: ``mamba-yolo_t`` of ``mamba-yolo_t_8xb64-300e_coco``."""
    return _RECIPE.sub('', config.stem)
