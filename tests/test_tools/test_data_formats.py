"""One set in three formats through the tools: the same training, the same AP."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from three_formats import compose_pictures, write_coco, write_voc, write_yolo


def edit_order(path: Path) -> None:
    """Turns the order of the images in a COCO file, which is no other data set."""
    content = json.loads(path.read_text())
    content['images'].reverse()
    path.write_text(json.dumps(content))


def test_training_and_ap_are_the_same_from_each_format(tiny_config, run_tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    pictures = {split: compose_pictures(count, seed, split)
                for seed, (split, count) in enumerate((('train', 8), ('val', 4), ('test', 3)))}
    options = ['--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'train_dataloader.batch_size=4',
               'optim_wrapper.optimizer.lr=0.01', 'param_scheduler.0.warmup_epochs=0',
               'param_scheduler.0.min_warmup_iters=0',
               *(f'{loader}_dataloader.{setting}' for loader in ('train', 'val', 'test')
                 for setting in ('num_workers=0', 'persistent_workers=False'))]
    results = []
    for name, write in (('COCO', write_coco), ('YOLO', write_yolo), ('VOC', write_voc)):
        data, run = write(tmp_path / name, pictures), tmp_path / f'run {name}'
        if name == 'COCO':
            edit_order(data / 'annotations' / 'train.json')
        assert run_tool('train', tiny_config, '--data', data, '--work-dir', run, *options) == 0
        assert f'data: {name} (' in capsys.readouterr().out
        records = [json.loads(line) for line in next(run.glob('*/vis_data/scalars.json')).read_text().splitlines()]
        found = [{key: record[key] for key in record if 'loss' in key or 'coco' in key} for record in records]
        assert run_tool('test', tiny_config, run / 'epoch_1.pth', '--data', data, '--split', 'test', '--out',
                        tmp_path / 'out', '--work-dir', run, *options) == 0
        found += [json.loads((tmp_path / f'out.{what}.json').read_text()) for what in ('bbox', 'metrics')]
        images = {item['image_id'] for item in found[-2]}
        assert images and images <= {1, 2, 3}
        results.append(found)
    assert 'loss' in results[0][0] and all('coco/bbox_mAP' in results[0][place] for place in (1, -1))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize('arguments, problem', [
    (['--split', 'test'], '--split is for --data PATH'),
    (['--data', '{coco}', '--split', 'test'], 'has no split test: it has train, val'),
    (['--data', 'none'], '--data must be one of coco, voc, bccd, demo, or a folder (or its data.yaml or COCO file); '
                         'there is no none'),
])
def test_bad_arguments(tiny_config, run_tool, shared_coco_folder, tmp_path: Path, capsys, arguments, problem):
    arguments = [argument.format(coco=shared_coco_folder) for argument in arguments]
    assert run_tool('test', tiny_config, tmp_path / 'none.pth', *arguments) == 2
    line, = capsys.readouterr().err.splitlines()
    assert problem in line
