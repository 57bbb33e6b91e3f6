"""Evaluates a checkpoint, or an exported file."""
from __future__ import annotations

import argparse
import os
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.dist import is_main_process
from mmengine.model import is_model_wrapper

from mmmamba.commands.options import add_settings, use_device, with_settings
from mmmamba.commands.results import after_test
from mmmamba.engine import CheckedRunner, load_checkpoint_checked, prepare_distributed
from mmmamba.engine.console import quiet_config_reading
from mmmamba.engine.exported_detector import SUFFIXES, use_exported_file
from mmmamba.errors import InputError
from mmmamba.files import write_json
from mmmamba.model_config import merge_options
from mmmamba.package_files import find_config
from mmmamba.recipes import RECIPES, default_work_dir, under_recipe
from mmmamba.settings import load_config
from mmmamba.settings.data import TEST_LOADERS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or the name of one of ours: mamba-yolo_t')
    parser.add_argument('checkpoint', help='checkpoint file, or an exported file')
    parser.add_argument(
        '--data',
        metavar='|'.join([*RECIPES, 'PATH']),
        help="another data set than the config's: one of these names, or your own in COCO, YOLO or VOC format")
    parser.add_argument('--split', choices=['val', 'test'], default='val',
                        help='which split of your own --data to test on; default: %(default)s')
    parser.add_argument('--work-dir', help='folder of logs; default: work_dirs/<name of the config>[_<data>]')
    parser.add_argument(
        '--out',
        metavar='PREFIX',
        help='write PREFIX.bbox.json and, of masks, PREFIX.segm.json (in the format of COCO results), and '
        'PREFIX.metrics.json')
    parser.add_argument('--tta', action='store_true', help="test-time augmentation, by the config's tta_pipeline")
    parser.add_argument('--show-dir', help='draw detections next to the ground truth, into this folder')
    add_settings(parser)
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='override settings of the config')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by some launchers')
    return parser.parse_args()


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
        raise InputError('--out needs a CocoMetric among the test evaluators')
    for evaluator in coco:
        evaluator.classwise = True
        if prefix:
            evaluator.outfile_prefix = prefix


def check_classes(meta: dict, classes: tuple[str, ...]) -> None:
    """Refuses weights that were trained for other classes than those of the test set."""
    trained = meta.get('dataset_meta', {}).get('classes')
    if trained is not None and tuple(trained) != tuple(classes):
        raise InputError(f'the checkpoint was trained for the classes {tuple(trained)}, the test set has {classes}')


def main() -> None:
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    quiet_config_reading()
    args.config = find_config(args.config)
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
    use_coco_options(cfg, args.out)
    if args.show_dir:
        cfg.default_hooks.visualization.update(draw=True, test_out_dir=args.show_dir)
    if args.out:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)

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
        if args.out:
            write_json(f'{args.out}.metrics.json', metrics, indent=2)
        print(after_test(runner, args.out, args.show_dir))
