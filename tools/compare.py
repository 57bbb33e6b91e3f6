"""``mmmamba compare`` from a clone: ``python tools/compare.py CONFIG ... --data DATA``."""
from mmmamba.cli import run
from mmmamba.commands.compare import main

if __name__ == '__main__':
    run(main)
