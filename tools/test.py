"""``mmmamba test`` from a clone: ``python tools/test.py CONFIG CHECKPOINT``."""
from mmmamba.cli import run
from mmmamba.commands.test import main

if __name__ == '__main__':
    run(main)
