"""``mmmamba predict`` from a clone: ``python tools/image_demo.py SOURCE CONFIG CHECKPOINT``."""
from mmmamba.cli import run
from mmmamba.commands.predict import main

if __name__ == '__main__':
    run(main)
