"""``mmmamba cam`` from a clone: ``python tools/analysis_tools/cam.py CONFIG CHECKPOINT IMAGE``."""
from mmmamba.cli import run
from mmmamba.commands.cam import main

if __name__ == '__main__':
    run(main)
