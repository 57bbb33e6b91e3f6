"""Checks a data set before training: what would stop it, what it would leave out, and what makes its AP mean little.

    mmmamba check-data FOLDER

prints counts, findings and a verdict, and writes OUT/index.html, a page with pictures of the suspects that opens
without a server, and OUT/report.json with every finding.

The exit status is 0 if training can start, with or without warnings, and 2 if it cannot.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmengine.config import Config

from mmmamba.analysis.data_check import check_data
from mmmamba.analysis.data_check.html_report import html_report
from mmmamba.analysis.data_check.text_report import text_report
from mmmamba.commands.options import add_image_size, image_size_of
from mmmamba.errors import InputError
from mmmamba.files import write_atomically, write_json
from mmmamba.package_files import CONFIGS
from mmmamba.recipes import FOLDER_RECIPE, RECIPES, data_name

_CANNOT_TRAIN = 2


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('path', type=Path, help="the folder or file that train's --data will be given")
    parser.add_argument('--out', type=Path, metavar='FOLDER', help='default: work_dirs/check-data_<name of the data>')
    add_image_size(parser, 'sizes of objects are judged when images are fitted into these; default: those of the '
                   'recipe of a folder')
    parser.add_argument('--quick', action='store_true', help='read the headers of images alone: damage after '
                        'them, and pictures that are nearly the same, are not found')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not args.path.exists():
        raise InputError(f'no such file or folder: {args.path}')
    width, height = image_size_of(args) or Config.fromfile(CONFIGS / '_base_' / RECIPES[FOLDER_RECIPE]).img_scale
    out = args.out or Path('work_dirs', f'check-data_{data_name(str(args.path))}')
    try:
        out.mkdir(parents=True, exist_ok=True)  # before minutes of reading
    except OSError as error:
        raise InputError(f'--out: cannot make the folder {out}: {error.strerror}') from error
    checked = check_data(args.path, (width, height), args.quick)
    write_json(out / 'report.json', checked.report.as_json(), indent=2)
    write_atomically(out / 'index.html', html_report(checked).encode())
    print(text_report(checked.report), f'Pictures: {out / "index.html"}\nAll findings: {out / "report.json"}',
          checked.report.verdict, sep='\n\n')
    if not checked.report.can_train:
        sys.exit(_CANNOT_TRAIN)
