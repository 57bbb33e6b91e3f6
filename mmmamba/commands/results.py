"""What a command says at its end: where everything lies, and how to go on."""
from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmmamba import cli
from mmmamba.analysis.report.results import Results
from mmmamba.datasets.formats import coco_datasets
from mmmamba.engine import latest_checkpoint
from mmmamba.engine.hooks.progress_hook import best_so_far, duration
from mmmamba.files import from_here


def after_training(runner: Runner, seconds: float) -> str:
    """Returns the last lines of a training: the best AP, the files, and calls that test, use and export the detector.

    Args:
        runner: Of the training.
        seconds: How long this call took.
    """
    best = best_so_far(runner)
    unit = 'epoch' if isinstance(runner.train_loop, EpochBasedTrainLoop) else 'iteration'
    best_checkpoint = runner.message_hub.runtime_info.get('best_ckpt')
    last_checkpoint = latest_checkpoint(runner.work_dir)
    scalars = Path(runner.log_dir, 'vis_data', 'scalars.json')
    files = {'best checkpoint': best_checkpoint, 'last checkpoint': last_checkpoint, 'log': _log(runner),
             'curves': scalars if scalars.is_file() else None}
    rows = [('best AP', f'{best[0]:.3f} at {unit} {best[1]}')] if best else []
    rows += [(name, from_here(file)) for name, file in files.items() if file]
    for backend in runner.cfg.get('visualizer', {}).get('vis_backends', ()):
        if backend['type'] == 'TensorboardVisBackend':
            rows.append(('TensorBoard', cli.command(['tensorboard', '--logdir', from_here(runner.work_dir)])))
        elif backend['type'] == 'MLflowVisBackend' and backend.get('tracking_uri'):
            rows.append(('MLflow', cli.command(['mlflow', 'ui', '--backend-store-uri', backend['tracking_uri']])))
    # As it was trained: with the classes of the data, whatever the call's options were.
    config = Path(runner.work_dir, Path(runner.cfg.filename).name)
    if last_checkpoint:
        model = from_here(config), from_here(best_checkpoint or last_checkpoint)
        exported = from_here(Path(runner.work_dir, 'model.onnx'))
        rows += [('to test it', cli.next_call('test', *model)),
                 ('to use it', cli.next_call('predict', *model, _pictures(runner.cfg))),
                 ('to export it', cli.next_call('export', *model, '--out', exported))]
    return f'Trained for {duration(seconds)}.\n{_table(rows)}'


def after_test(runner: Runner, prefix: str | None, drawn: str | None, folder: Path | None = None,
               report: Results | None = None) -> str:
    """Returns the last lines of a test: where its results are, and which score to use.

    Args:
        runner: Of the test.
        prefix: Of the files of detections, if these were asked for.
        drawn: The folder of pictures, if these were asked for.
        folder: Of the report, if this was asked for.
        report: What it shows.
    """
    rows = [('metrics', from_here(f'{prefix}.metrics.json' if prefix else
                                  Path(runner.log_dir, f'{runner.timestamp}.json')))]
    if prefix:
        rows += [('detections', from_here(f'{prefix}.{kind}.json')) for kind in ('bbox', 'segm')
                 if Path(f'{prefix}.{kind}.json').is_file()]
    if drawn:
        rows.append(('pictures', from_here(Path(runner.log_dir, drawn))))
    if report:
        f1 = report.summary()['f1']
        rows += [('best score', f'{report.score:.2f}, with F1 {f1:.3f}' if f1 else 'none: no detection is right'),
                 ('report', from_here(folder / 'report.html'))]
    return _table([*rows, ('log', from_here(_log(runner)))])


def _log(runner: Runner) -> Path:
    return Path(runner.log_dir, f'{runner.timestamp}.log')


def _pictures(cfg: Config) -> str:
    """Returns a folder of pictures to try a detector on, the test set's."""
    dataset: dict = next(coco_datasets(cfg.get('test_dataloader', {}).get('dataset', {})), {})
    folder = Path(dataset.get('data_root') or '', (dataset.get('data_prefix') or {}).get('img') or '')
    return from_here(folder) if folder != Path() and folder.is_dir() else 'PICTURES'


def _table(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return '\n'.join(f'{name:{width}}  {value}' for name, value in rows)
