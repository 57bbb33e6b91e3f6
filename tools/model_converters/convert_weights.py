"""Converts weights of a reference implementation: ``convert_weights.py SYSTEM SRC DST``.

SRC is what the reference saved: a state dict, a pickled model, or a dict with one of these under ``ema``,
``model_ema``, ``state_dict_ema``, ``model`` or ``state_dict`` (the first of them is taken). Of a classifier, the head
is left out. SRC is read as data: none of its classes is imported, nothing in it is run.
"""
from __future__ import annotations

import argparse

from mmmamba.cli import run
from mmmamba.convert import SYSTEMS, dropped, read_checkpoint, write_checkpoint
from mmmamba.errors import first_names
from mmmamba.version import __version__

BUFFERS = ('running_mean', 'running_var', 'num_batches_tracked')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('system', choices=sorted(SYSTEMS), help='whose weights they are')
    parser.add_argument('src', help='checkpoint of the reference implementation')
    parser.add_argument('dst', help='checkpoint to write, for load_from, init_cfg or tools/test.py')
    args = parser.parse_args()

    source = read_checkpoint(args.src)
    state_dict = SYSTEMS[args.system](source.state_dict)
    write_checkpoint(args.dst, state_dict, dict(converted_from=args.system, mmmamba_version=__version__))

    head = dropped(source.state_dict, args.system)
    parameters = sum(t.numel() for name, t in state_dict.items() if not name.endswith(BUFFERS))
    print(f'{args.dst}: {len(state_dict)} tensors, {parameters:,} parameters'
          + (f', from its {source.origin}' if source.origin else '')
          + (f', {source.upcast} upcast from half precision' if source.upcast else '')
          + (f'; without the {len(head)} of the classifier: {first_names(head)}' if head else ''))


if __name__ == '__main__':
    run(main)
