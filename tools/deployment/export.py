"""``mmmamba export`` from a clone: ``python tools/deployment/export.py CONFIG CHECKPOINT --out FILE``."""
from mmmamba.cli import run
from mmmamba.commands.export import main

if __name__ == '__main__':
    run(main)
