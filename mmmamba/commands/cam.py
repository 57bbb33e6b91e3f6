"""Draws class activation maps: where in an image a layer of a detector responds, or what its scores depend on.

    mmmamba cam CONFIG CHECKPOINT photos/ --layer backbone.stages.3 neck

leaves OUT_DIR/NAME_LAYER_METHOD.jpg of each image: the image with the map and the detections.

The exit status is 0 if every image is done, 3 if some are not, each with a warning that says why, and 2 if none is.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from mmmamba.analysis.cam import METHODS, CamDetector, blended, draw_map
from mmmamba.analysis.media import write_picture
from mmmamba.analysis.prediction_run import warn
from mmmamba.analysis.sources import Source, Sources, find_sources
from mmmamba.cli import require_device
from mmmamba.commands.argument_types import score
from mmmamba.datasets.transforms.load_checked_image import LoadCheckedImage, UnreadableImageError
from mmmamba.errors import InputError, PartialResultError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file, or the name of one of ours: mamba-yolo_t')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('source', nargs='+', help='image, folder, pattern or address')
    parser.add_argument('--layer', nargs='+', metavar='NAME',
                        help='modules by their names, a map each; default: the outputs of the neck')
    parser.add_argument('--method', choices=list(METHODS), default='eigencam',
                        help='eigencam: what a layer responds to; gradcam and hirescam: what the scores depend on, '
                        'by the mean gradient of a channel or by that of each cell; default: %(default)s')
    parser.add_argument('--score', type=score, default=0.3,
                        help='detections above it are drawn, and explained by their gradients; default: %(default)s')
    parser.add_argument('--class', dest='name', metavar='NAME', help='explain only scores of this class')
    parser.add_argument('--out-dir', type=Path, metavar='FOLDER', default=Path('outputs/cam'),
                        help='default: %(default)s')
    parser.add_argument('--device', help='cpu, cuda or cuda:N; default: cuda if there is one')
    args = parser.parse_intermixed_args()
    if args.name and args.method == 'eigencam':
        parser.error('--class is for --method gradcam or hirescam: eigencam knows no classes')
    return args


def draw(detector: CamDetector, source: Source, args: argparse.Namespace) -> None:
    """Writes the maps of an image.

    Raises:
        InputError: The image cannot be used, or a layer has no maps.
    """
    picture = LoadCheckedImage()({'img_path': str(source.path)})['img']
    label = detector.classes.index(args.name) if args.name else None
    activations, sample = detector.activations(detector.prepare(picture, source.path),
                                               args.layer or [detector.default_layer], args.score, label,
                                               args.method != 'eigencam')
    found = detector.choose(sample.cpu().detach(), args.score)
    found.pop('masks', None)  # they would hide the map
    for name, maps in activations.items():
        heat = blended([METHODS[args.method](one) for one in maps], sample)
        out = args.out_dir / f'{source.stem}_{name}_{args.method}.jpg'
        write_picture(out, detector.draw(draw_map(picture, heat), found))
        print(out)


def draw_all(detector: CamDetector, sources: Sources, args: argparse.Namespace) -> None:
    """Writes the maps of all images, with a warning about each that cannot be read.

    Raises:
        PartialResultError: Some sources could not be used.
    """
    left_out = [*sources.failed]
    for source in sources.images:
        try:
            draw(detector, source, args)
        except UnreadableImageError as error:
            left_out.append(str(error).replace(str(source.path), source.given))
    for message in [*left_out, *sources.ignored, *(f'{video.given}: a video' for video in sources.videos)]:
        warn(f'{message}; left out')
    if len(left_out) == len(sources.failed) + len(sources.images):
        raise InputError('nothing is done; the warnings say why')
    if left_out:
        raise PartialResultError(f'{len(left_out)} source(s) could not be done; the warnings say why')


def main() -> None:
    args = parse_args()
    device = require_device(args.device) if args.device else None
    with TemporaryDirectory(prefix='mmmamba') as downloads:
        sources = find_sources(args.source, Path(downloads))
        if not sources.images:
            raise InputError('maps are drawn of images, and there is none among the sources')
        detector = CamDetector(args.config, args.checkpoint, device)
        for name in args.layer or ():
            detector.layer(name)
        if args.name and args.name not in detector.classes:
            raise InputError(f'--class {args.name}: the classes are {", ".join(detector.classes)}')
        draw_all(detector, sources, args)
