"""``mmmamba predict`` from a clone, sources first: ``python tools/image_demo.py SOURCE ... CONFIG CHECKPOINT``."""
from mmmamba.cli import run
from mmmamba.commands import predict


def main() -> None:
    predict.main(source_first=True)


if __name__ == '__main__':
    run(main)
