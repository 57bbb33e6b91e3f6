"""Lists the models of the package, and the weights that their authors offer.

    mmmamba zoo              all of them
    mmmamba zoo mamba-yolo   those with this in their name

FLOPs are of one image of the size next to them, 2 for a multiply-add, with those of the scans. AP are box and mask AP
on COCO val2017: "published" by the model's authors, "ours" what this package reached, – where nothing is known.
Weights are trained by the model's authors, under the licence next to them: `mmmamba train CONFIG --weights NAME`
downloads and converts them.
"""
from __future__ import annotations

import argparse
from collections.abc import Mapping

from mmmamba.analysis.measure import Table
from mmmamba.errors import InputError
from mmmamba.zoo import ZooModel, ZooWeights, zoo_models, zoo_weights

NOTHING = '–'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', help='parts of names; default: everything')
    parser.add_argument('--markdown', action='store_true', help='print markdown instead of text')
    args = parser.parse_args()

    def wanted(name: str) -> bool:
        return not args.names or any(part.lower() in name.lower() for part in args.names)

    models = [model for model in zoo_models() if wanted(model.name)]
    weights = [file for file in zoo_weights().values() if wanted(file.name)]
    if not models and not weights:
        raise InputError(f'no model and no weights have {" or ".join(args.names)} in their names')
    tables = [table for table in (model_table(models), weights_table(weights)) if table.rows]
    print('\n\n'.join(table.markdown() if args.markdown else table.text() for table in tables))


def model_table(models: list[ZooModel]) -> Table:
    """Returns a row for each config."""
    header = ('config', 'parameters (M)', 'GFLOPs', 'of H x W', 'AP, published', 'AP, ours')
    rows = [[model.name, _scaled(model.parameters, 1e6), _scaled(model.flops, 1e9),
             ' x '.join(map(str, model.image_size)) if model.image_size else NOTHING,
             _ap(model.published), _ap(model.ours)] for model in models]
    return Table(header, rows, words=('config', 'of H x W', 'AP, published', 'AP, ours'))


def weights_table(weights: list[ZooWeights]) -> Table:
    """Returns a row for each file."""
    header = ('weights', 'trained on', 'licence', 'address')
    return Table(header, [[file.name, file.trained_on, file.licence, file.address] for file in weights], words=header)


def _scaled(number: int | None, unit: float) -> str:
    return NOTHING if number is None else f'{number / unit:.2f}'


def _ap(values: Mapping[str, float]) -> str:
    return ', '.join(f'{name.removesuffix(" AP")} {value}' for name, value in values.items()) or NOTHING
