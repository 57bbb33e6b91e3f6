"""Makes a web page of an exported detector: ``python tools/deployment/make_page.py FILE.onnx --out FOLDER``.

The folder is for any static host; the network runs in the visitor's browser. ``python -m http.server --directory
FOLDER`` serves it here.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from mmmamba import cli
from mmmamba.deploy.export.web_page import ONNXRUNTIME_WEB, make_page


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', type=Path, help='a file of tools/deployment/export.py')
    parser.add_argument('--out', type=Path, required=True, metavar='FOLDER', help='the folder to write')
    parser.add_argument('--onnxruntime-web', type=Path, metavar='FOLDER',
                        help=f'the unpacked package; default: npm fetches {ONNXRUNTIME_WEB}')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    make_page(args.model, args.out, args.onnxruntime_web)
    size = sum(path.stat().st_size for path in args.out.rglob('*') if path.is_file())
    print(f'{args.out}: {size / 2**20:.0f} MiB; python -m http.server --directory {args.out}')


if __name__ == '__main__':
    cli.run(main)
