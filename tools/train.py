"""``mmmamba train`` from a clone: ``python tools/train.py CONFIG``."""
from mmmamba.cli import run
from mmmamba.commands.train import main

if __name__ == '__main__':
    run(main)
