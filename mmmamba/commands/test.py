"""Measures the AP of a checkpoint, or of an exported file.

    mmmamba test CONFIG CHECKPOINT --data FOLDER --report FOLDER

FOLDER/report.html shows which score to use, and what goes wrong; it opens without a server.
"""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.model import is_model_wrapper
from torch import nn

from mmmamba import cli
from mmmamba.analysis.compare.evaluation import read_truth
from mmmamba.analysis.compare.plan import truth_of
from mmmamba.analysis.report.document import write_report
from mmmamba.analysis.report.results import EvaluatedRun, Results
from mmmamba.analysis.report.settings import settings_of
from mmmamba.commands.options import add_run_options, add_settings, use_device, with_settings
from mmmamba.commands.results import after_test
from mmmamba.engine import CheckedRunner, load_checkpoint_checked, prepare_distributed
from mmmamba.engine.console import quiet_config_reading
from mmmamba.engine.exported_detector import SUFFIXES, use_exported_file
from mmmamba.errors import InputError
from mmmamba.files import write_json
from mmmamba.model_config import merge_options, without_file
from mmmamba.package_files import find_config, model_name
from mmmamba.recipes import RECIPES, data_name, default_work_dir, under_recipe
from mmmamba.settings import class_names, load_config
from mmmamba.settings.data import TEST_LOADERS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file, or the name of one of ours: mamba-yolo_t')
    parser.add_argument('checkpoint', help='checkpoint file, or an exported file')
    parser.add_argument(
        '--data',
        metavar='|'.join([*RECIPES, 'PATH']),
        help="another data set than the config's: one of these names, or your own in COCO, YOLO or VOC format")
    parser.add_argument('--split', choices=['val', 'test'], default='val',
                        help='which split of your own --data to test on; default: %(default)s')
    parser.add_argument('--work-dir', metavar='FOLDER',
                        help='of logs; default: work_dirs/<name of the config>[_<data>]')
    parser.add_argument(
        '--out',
        metavar='PREFIX',
        help='write PREFIX.bbox.json and, of masks, PREFIX.segm.json (in the format of COCO results), and '
        'PREFIX.metrics.json; a name that ends with .pkl is written as mmdet writes it, for its analysis tools')
    parser.add_argument(
        '--report',
        type=Path,
        metavar='FOLDER',
        help='write FOLDER/report.html: which score to use, classes, confusion matrix, errors, worst images, '
        'and detections that may be objects without a label')
    parser.add_argument('--no-pictures', action='store_true',
                        help='leave images out of the report: the licence of a data set may not let you pass them on')
    parser.add_argument('--tta', action='store_true', help="test-time augmentation, by the config's tta_pipeline")
    parser.add_argument('--show-dir', metavar='FOLDER', help='draw detections next to the ground truth into it')
    add_settings(parser)
    add_run_options(parser)
    args = parser.parse_args()
    if args.no_pictures and not args.report:
        parser.error('--no-pictures is about the page of --report')
    return args


def use_tta(cfg: Config) -> None:
    """Puts mmdet's test-time augmentation around the model."""
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        raise InputError('--tta needs tta_model and tta_pipeline in the config')
    cfg.model = dict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def use_coco_options(cfg: Config, prefix: str | None) -> None:
    """Asks for a row for each class, and says where the detections go."""
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    coco = [evaluator for evaluator in evaluators if evaluator['type'] == 'CocoMetric']
    if prefix and not coco:
        raise InputError('--out and --report need a CocoMetric among the test evaluators')
    for evaluator in coco:
        evaluator.classwise = True
        if prefix:
            evaluator.outfile_prefix = prefix


def report_of(args: argparse.Namespace, config: str, cfg: Config, truth: dict, model: nn.Module, meta: dict,
              prefix: str, metrics: dict[str, float]) -> Results:
    """Writes the report of a test."""
    annotations, images = truth_of(cfg)
    trained = Path(args.checkpoint).with_name(args.config.name)
    if args.data and trained.is_file():  # the named one has other classes than the detector
        config = str(trained)
    title = f'{model_name(args.config)} on {data_name(args.data) if args.data else annotations.stem}'
    run = EvaluatedRun(title, config, args.checkpoint, cli.call_again(sys.argv), truth, images,
                       Path(f'{prefix}.bbox.json'), metrics, settings_of(cfg, model, meta, str(annotations)),
                       cfg.pretty_text)
    return write_report(run, args.report, pictures=not args.no_pictures)


def check_classes(meta: dict, classes: tuple[str, ...]) -> None:
    """Refuses weights that were trained for other classes than those of the test set."""
    trained = meta.get('dataset_meta', {}).get('classes')
    if trained is not None and tuple(trained) != tuple(classes):
        raise InputError(f'the checkpoint was trained for the classes {tuple(trained)}, the test set has {classes}')


def main() -> None:
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    quiet_config_reading()
    named, args.config = args.config, find_config(args.config)
    if args.device:
        use_device(args.device, args.launcher)
    cfg = load_config(args.config)
    if args.data:
        cfg = under_recipe(cfg, args.data, args.split)
    elif args.split != 'val':
        raise InputError('--split is for --data PATH')
    cfg = with_settings(cfg, args, TEST_LOADERS)
    merge_options(cfg, args.cfg_options or {})
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default_work_dir(args.config, args.data)
    cfg.load_from = None  # the weights are those named on the command line, and loaded strictly below
    exported = args.checkpoint.endswith(SUFFIXES)
    if args.tta:
        if exported:
            raise InputError('--tta needs a checkpoint: an exported file is for images as they are')
        use_tta(cfg)
    if exported:
        use_exported_file(cfg, args.checkpoint)
    dump = args.out and args.out.endswith('.pkl')
    prefix = args.out if args.out and not dump else args.report and str(args.report / 'detections')
    use_coco_options(cfg, prefix)
    if dump:
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        cfg.test_evaluator = [*evaluators, dict(type='DumpDetResults', out_file_path=args.out)]
    # What is wrong with the annotations shall be said before the test.
    truth = read_truth(truth_of(cfg)[0], class_names(cfg)) if args.report else {}
    if args.show_dir:
        cfg.default_hooks.visualization.update(draw=True, test_out_dir=args.show_dir)
    for place in (args.out, prefix):
        if place:
            Path(place).parent.mkdir(parents=True, exist_ok=True)

    cfg = without_file(cfg)  # the work dir may be a training's, whose config has to stay
    prepare_distributed(cfg, args.launcher)
    runner = CheckedRunner.from_cfg(cfg)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if exported:
        meta = {'dataset_meta': {'classes': model.classes}}
    else:
        meta = load_checkpoint_checked(model.module if args.tta else model, args.checkpoint)
    with runner.console.watch():
        check_classes(meta, runner.test_dataloader.dataset.metainfo['classes'])
        metrics = runner.test()
    if is_main_process():
        if args.out and not dump:
            write_json(f'{args.out}.metrics.json', metrics, indent=2)
        report = report_of(args, named, cfg, truth, model, meta, prefix, metrics) if args.report else None
        print(after_test(runner, None if dump else args.out, args.show_dir, args.report, report))
