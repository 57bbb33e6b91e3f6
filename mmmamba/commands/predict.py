"""Detects objects in images, videos, cameras and streams; writes drawn pictures and json.

    mmmamba predict CONFIG CHECKPOINT photos/ clip.mp4 'more/**/*.jpg' https://host/picture.jpg
    mmmamba predict --weights work_dirs/mine/epoch_30.pth 0 --track

CONFIG is a config file, or the name of one of ours: mamba-yolo_t. CHECKPOINT is a checkpoint, or an exported file.
With --weights no config is named: for a checkpoint it is the one that training left next to it, and an exported file
needs none.

SOURCE is an image, a video, a folder of them, a pattern in quotes, an address (http or https: of an image, a video or
a stream; rtsp or rtmp: of a stream), or the number of a camera. A camera or a stream ends with Ctrl-C.

In --out-dir are vis/NAME (a video becomes vis/NAME.mp4), preds/NAME.json and what else is asked for.

The exit status is 0 if every image or frame is done, 3 if some are not, each with a warning that says why, and 2 if
nothing is done.
"""
from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from mmmamba.analysis.inference import Detector
from mmmamba.analysis.prediction_outputs import Outputs
from mmmamba.analysis.prediction_run import Run, warn
from mmmamba.analysis.sources import find_sources
from mmmamba.analysis.video_file import has_h264
from mmmamba.analysis.window import Window
from mmmamba.cli import require_device
from mmmamba.commands.argument_types import names, score
from mmmamba.errors import InputError, PartialResultError, did_you_mean, first_names

_SLICE = 640


def parse_args(source_first: bool) -> argparse.Namespace:
    form = 'SOURCE ... CONFIG CHECKPOINT' if source_first else 'CONFIG CHECKPOINT SOURCE ...'
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('words', nargs='*', metavar='WORD', help=f'{form}; with --weights, SOURCE ...')
    parser.add_argument('--weights', metavar='CHECKPOINT', help='a checkpoint in its work dir, or an exported file')
    parser.add_argument('--out-dir', type=Path, metavar='FOLDER', default=Path('outputs'), help='default: %(default)s')
    parser.add_argument('--score', '--score-thr', type=score, default=0.3, help='least score; default: %(default)s')
    parser.add_argument('--classes', type=names, metavar='A,B', help='only these classes, with commas')
    parser.add_argument('--device', help='cpu, cuda or cuda:N; default: cuda if there is one')
    parser.add_argument('--batch-size', type=int, default=1, help='images at a time; default: %(default)s')
    parser.add_argument('--slice', type=int, nargs='?', const=_SLICE, metavar='SIZE',
                        help=f'for small objects in large images: search parts of SIZE x SIZE pixels (default: '
                        f'{_SLICE}), which overlap')
    parser.add_argument('--track', action='store_true', help='number the objects of a video through its frames')
    parser.add_argument('--save-txt', action='store_true', help='also write labels/NAME.txt in the format of YOLO')
    parser.add_argument('--save-conf', action='store_true', help='with the scores in these files')
    parser.add_argument('--save-crops', action='store_true', help='also write each object to crops/CLASS/')
    parser.add_argument('--no-save-vis', action='store_true', help='draw nothing, which is faster')
    parser.add_argument('--show', action='store_true', help='show what is drawn in a window; q ends')
    args = parser.parse_intermixed_args()
    if len(args.words) < (3 if args.weights is None else 1):
        parser.error(f'it takes {form}, or --weights CHECKPOINT SOURCE ...; got {" ".join(args.words) or "none"}')
    if args.weights is not None:
        args.config, args.checkpoint, args.source = None, args.weights, args.words
    elif source_first:
        *args.source, args.config, args.checkpoint = args.words
    else:
        args.config, args.checkpoint, *args.source = args.words
    if args.batch_size < 1:
        parser.error('--batch-size must be at least 1')
    if args.slice is not None and args.slice < 32:
        parser.error('--slice: SIZE must be at least 32')
    if args.save_conf and not args.save_txt:
        parser.error('--save-conf is about the files of --save-txt')
    return args


def labels_of(chosen: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Returns the numbers of classes that are named.

    Raises:
        InputError: There is no such class.
    """
    for name in chosen:
        if name not in classes:
            hint = did_you_mean(name, classes, otherwise=f'; there are {first_names(classes, 10)}')
            raise InputError(f'--classes: no class {name!r}{hint}')
    return [list(classes).index(name) for name in chosen]


def report(run: Run, seconds: float, failed_sources: int) -> None:
    """Prints what was found, and where it is.

    Raises:
        InputError: Nothing is done.
        PartialResultError: Some is not.
    """
    kinds = [('image(s)', run.pictures), ('frame(s)', run.frames)]
    done = ' and '.join(f'{tally.done} {unit}' for unit, tally in kinds if tally.done)
    failed = [f'{tally.failed} of {tally.failed + tally.done} {unit}' for unit, tally in kinds if tally.failed]
    if failed_sources:
        failed.append(f'{failed_sources} source(s)')
    if not done and failed:
        raise InputError(f'nothing is done: {" and ".join(failed)} could not be; the warnings say why')
    rate = (run.pictures.done + run.frames.done) / seconds
    print(f'{run.outputs.summary()}\n{done or "0 images"} in {seconds:.1f} s ({rate:.1f} a second)\n'
          f'Results: {", ".join(str(run.outputs.folder / name) for name in run.outputs.made)}')
    if failed:
        raise PartialResultError(f'{" and ".join(failed)} could not be done; the warnings say why')


def main(source_first: bool = False) -> None:
    args = parse_args(source_first)
    device = require_device(args.device) if args.device else None
    with TemporaryDirectory(prefix='mmmamba') as downloads:
        sources = find_sources(args.source, Path(downloads))
        if args.track and not (sources.videos or sources.live):
            raise InputError('--track is for videos, cameras and streams, and there are images alone: leave it out')
        detector = Detector(args.config, args.checkpoint, device)
        labels = labels_of(args.classes, detector.classes) if args.classes else None
        window = Window() if args.show else None
        outputs = Outputs(args.out_dir, detector.classes, drawn=not args.no_save_vis, text=args.save_txt,
                          text_scores=args.save_conf, crops=args.save_crops)
        for message in [*sources.failed, *sources.ignored]:
            warn(f'{message}; left out')
        if outputs.drawn and (sources.videos or sources.live) and not has_h264():
            warn('drawn videos are MPEG-4, which browsers do not play; for H.264: pip install av')
        run = Run(detector, outputs, args.score, labels, args.batch_size, args.slice, args.track, window)
        started = time.monotonic()
        run.do(sources)
        report(run, time.monotonic() - started, len(sources.failed))
