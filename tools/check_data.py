"""``mmmamba check-data`` from a clone: ``python tools/check_data.py FOLDER``."""
from mmmamba.cli import run
from mmmamba.commands.check_data import main

if __name__ == '__main__':
    run(main)
