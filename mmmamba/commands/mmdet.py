"""Runs a tool of MMDetection with our models and data sets known to it.

    mmmamba mmdet --data FOLDER browse_dataset mamba-yolo_t --not-show --output-dir pictures
    mmmamba mmdet print_config mamba-yolo_t
    mmmamba mmdet analyze_logs plot_curve scalars.json --keys loss

The tool is MMDetection's own file, as installed. Run directly it would import mmdet before mmmamba, and end with "No
module named mmcv._ext" where mmcv is not compiled.
"""
from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from mmmamba.errors import InputError, did_you_mean
from mmmamba.package_files import find_config
from mmmamba.recipes import RECIPES, under_recipe
from mmmamba.settings import load_config


def find_tools() -> Mapping[str, Path]:
    """Returns the tools that MMDetection installs, but for training and testing, which are ours: name → file."""
    folder = Path(find_spec('mmdet').origin).parent / '.mim' / 'tools'
    return {path.stem: path for path in sorted(folder.glob('*/*.py'))}


def parse_args(tools: Mapping[str, Path]) -> argparse.Namespace:
    listed: dict[str, list[str]] = {path.parent.name: [] for path in tools.values()}
    for name, path in tools.items():
        listed[path.parent.name].append(name)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='\n'.join(f'{folder}:\n  {" ".join(names)}' for folder, names in listed.items()))
    parser.add_argument('--data', metavar='|'.join([*RECIPES, 'PATH']),
                        help="the tool's configs are put on this data set, as train and test do it")
    parser.add_argument('tool', metavar='TOOL', help='name of a tool, see below; TOOL --help shows its arguments')
    parser.add_argument('arguments', nargs=argparse.REMAINDER, metavar='...',
                        help='its arguments; configs are files, or names of ours: mamba-yolo_t')
    args = parser.parse_args()
    if args.tool not in tools:
        hint = did_you_mean(args.tool, tools, 1, otherwise='; mmmamba mmdet --help lists them')
        raise InputError(f'MMDetection has no tool {args.tool}{hint}')
    if '--data' in args.arguments:
        raise InputError(f'--data comes before the name of the tool: mmmamba mmdet --data PATH {args.tool} ...')
    return args


def with_configs(arguments: Sequence[str], data: str | None, folder: Path) -> list[str]:
    """Returns arguments with the file of each config instead of its name.

    Args:
        arguments: Of a tool.
        data: The data set that configs are put on, into new files; None for that of the config.
        folder: Where the new files are written.
    """
    words = []
    for word in arguments:
        path = _config(word)
        if path and data:
            config = under_recipe(load_config(path), data)
            path = folder / path.name
            config.dump(path)
        words.append(str(path) if path else word)
    return words


def _config(word: str) -> Path | None:
    """Returns the config that an argument names, if it does."""
    if not word.startswith('-') and not Path(word).is_dir():
        with suppress(InputError):
            path = find_config(word)
            return path if path.suffix == '.py' else None
    return None


def main() -> None:
    tools = find_tools()
    args = parse_args(tools)
    with TemporaryDirectory() as folder:
        sys.argv = [f'mmmamba mmdet {args.tool}', *with_configs(args.arguments, args.data, Path(folder))]
        runpy.run_path(str(tools[args.tool]), run_name='__main__')
