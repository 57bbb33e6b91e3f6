"""Writes the weights of a training's checkpoint alone: ``publish_model.py SRC DST [--half]``.

The file is for tests, predictions, export and fine-tuning: the weights (the EMA's, if the training had one), the
names of the classes and the epoch, without the optimizer's state and the config, which names folders of your machine.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from mmmamba.cli import run
from mmmamba.convert import publish


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', type=Path, help='checkpoint of a training')
    parser.add_argument('dst', type=Path, help='file to write')
    parser.add_argument('--half', action='store_true', help='arrays of two dimensions or more in float16')
    args = parser.parse_args()
    publish(args.src, args.dst, args.half)
    before, after = (path.stat().st_size / 1e6 for path in (args.src, args.dst))
    print(f'{args.dst}: {after:.1f} MB instead of {before:.1f} MB')


if __name__ == '__main__':
    run(main)
