"""Searches the directions of a detector's scans: ``python tools/search_directions.py CONFIG``.

Each layer scans in eight directions, and learns how much each counts while the detector is trained from scratch
(LocalMamba, arXiv 2403.09338, section 3.2). Then the four most probable of each layer are printed, and written to
<name of the config>_directions.py in the work dir: a config that inherits CONFIG, and is trained in its place.
"""
from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from torch import nn

import mmmamba  # noqa: F401  (makes mmdet run without compiled mmcv, and registers the models)
from mmmamba import cli
from mmmamba.analysis.measure.tables import Table
from mmmamba.commands.options import add_run_options
from mmmamba.engine import CheckedRunner, keep_freed_memory, prepare_distributed
from mmmamba.errors import InputError
from mmmamba.files import write_atomically
from mmmamba.layers.direction_search import DirectionSearch, search_directions
from mmmamba.model_config import merge_options
from mmmamba.recipes import RECIPES, default_work_dir, from_scratch, under_recipe
from mmmamba.settings import load_config, with_epochs

ROOT = Path(__file__).resolve().parents[1]


class SearchRunner(CheckedRunner):
    """A runner whose model searches its directions."""

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Builds the model, and has its layers scan in all directions.

        Raises:
            InputError: It has no layer whose directions can be searched.
        """
        model = super().build_model(model)
        self.searched = search_directions(model)  # by name, before a launcher wraps the model
        if not self.searched:
            raise InputError('the model has no scan whose directions can be searched: those of ODMamba, ODSSPAFPN, '
                             'VMamba, LocalVMamba and LocalVim can')
        return model


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--data',
        metavar='|'.join([*RECIPES, 'PATH']),
        help="another data set than the config's, under that set's recipe (see mmmamba.recipes)")
    parser.add_argument('--epochs', type=int, help='fit the recipe of --data into so many')
    parser.add_argument('--work-dir', help='default: work_dirs/<name of the config>[_<data>]_search')
    parser.add_argument('--resume', action='store_true', help='continue from the last checkpoint in the work dir')
    add_run_options(parser)
    args = parser.parse_args()
    if args.epochs is not None and not args.data:
        parser.error('--epochs is of the recipe of --data; without, --cfg-options train_cfg.max_epochs=N')
    return args


def found_config(config: str, layers: dict[str, DirectionSearch]) -> str:
    """Returns the text of a config that inherits ``config``, with the directions that were found."""
    found: dict[str, list[list[str]]] = {}
    for name, layer in layers.items():
        found.setdefault(name.split('.')[0], []).append(layer.chosen())
    lines = [f'_base_ = {str(Path(config).resolve())!r}', '', 'model = dict(']
    for part, directions in found.items():
        lines += [f'    {part}=dict(directions=[', *(f'        {names},' for names in directions), '    ]),']
    return '\n'.join([*lines, ')', ''])


def table(layers: dict[str, DirectionSearch]) -> Table:
    """Returns a row for each layer: the directions that are chosen, the best of the others, and probabilities."""
    rows = []
    for name, layer in layers.items():
        probabilities, chosen = layer.probabilities(), layer.chosen()
        best = next(direction for direction in probabilities if direction not in chosen)
        rows.append([name, ' '.join(chosen), ' '.join(f'{probabilities[direction]:.3f}' for direction in chosen),
                     f'{best} {probabilities[best]:.3f}'])
    header = ['layer', 'chosen', 'probabilities', 'best of the others']
    return Table(header, rows, header)


def how_to_train(args: argparse.Namespace, config: Path) -> str:
    """Returns the call that trains ``config``, with the data and with what was changed of the model."""
    words = ['python', 'tools/train.py', str(config), *(['--data', args.data] if args.data else [])]
    of_model = [f'{key}={value}' for key, value in (args.cfg_options or {}).items() if key.startswith('model.')]
    return shlex.join([*words, *(['--cfg-options', *of_model] if of_model else [])])


def main() -> None:
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config)
    if args.data:
        cfg = under_recipe(cfg, args.data)
        cfg = cfg if args.epochs is None else with_epochs(cfg, args.epochs)
    merge_options(cfg, args.cfg_options or {})
    cfg = from_scratch(cfg)
    cfg.launcher, cfg.resume = args.launcher, args.resume
    cfg.work_dir = args.work_dir or f'{default_work_dir(args.config, args.data)}_search'
    if not torch.cuda.is_available():
        keep_freed_memory()
    prepare_distributed(cfg, args.launcher)
    runner = SearchRunner.from_cfg(cfg)
    runner.train()
    if is_main_process():
        print(table(runner.searched).text())
        target = Path(runner.work_dir, f'{Path(args.config).stem}_directions.py')
        write_atomically(target, found_config(args.config, runner.searched).encode())
        print(f'train them with: {how_to_train(args, target)}')


if __name__ == '__main__':
    cli.run(main)
