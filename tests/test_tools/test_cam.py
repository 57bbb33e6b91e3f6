"""``mmmamba cam``: pictures of any layer, and what it says of layers that are not there."""
from __future__ import annotations

import cv2
import pytest


@pytest.fixture
def cam(run_command, tiny_config, tiny_checkpoint, shared_coco_folder, tmp_path):
    """A function that draws maps of the first validation image, or of other sources."""
    def run(*options: object, sources: tuple = (shared_coco_folder / 'val' / '000001.jpg', )) -> int:
        return run_command('cam', tiny_config, tiny_checkpoint, *sources, '--out-dir', tmp_path / 'maps', *options)
    return run


def test_what_cannot_be_read_is_named_and_the_rest_done(cam, shared_coco_folder, tmp_path, capsys):
    source = tmp_path / 'in'
    source.mkdir()
    picture = cv2.imread(str(shared_coco_folder / 'val' / '000001.jpg'))
    for name in ('a.jpg', 'a.png'):
        cv2.imwrite(str(source / name), picture)
    (source / '0.jpg').write_bytes(b'no jpeg')
    assert cam(sources=(source, tmp_path / 'absent.jpg')) == 3
    printed = capsys.readouterr()
    assert sorted(path.name for path in (tmp_path / 'maps').iterdir()) == ['a_2_neck_eigencam.jpg',
                                                                           'a_neck_eigencam.jpg']
    assert len([line for line in printed.err.splitlines() if 'warning: ' in line]) == 2
    assert printed.err.splitlines()[-1] == 'error: 2 source(s) could not be done; the warnings say why'
    assert cam(sources=(source / '0.jpg',)) == 2
    assert 'error: nothing is done' in capsys.readouterr().err


@pytest.mark.parametrize(('method', 'options'), [('eigencam', []), ('gradcam', ['--class', 'wide']), ('hirescam', [])])
def test_maps_of_the_neck_and_of_a_stage(cam, tmp_path, capsys, method, options):
    layers = [] if method == 'hirescam' else ['--layer', 'neck', 'backbone.stages.2']
    assert cam('--method', method, *options, *layers) == 0
    names = ['neck', 'backbone.stages.2'][:2 if layers else 1]
    files = [tmp_path / 'maps' / f'000001_{name}_{method}.jpg' for name in names]
    assert capsys.readouterr().out.split() == [str(file) for file in files]
    assert all(cv2.imread(str(file)).shape == (48, 64, 3) for file in files)


@pytest.mark.parametrize(('options', 'message'), [
    (['--layer', 'backbone.stags.2'], "no layer 'backbone.stags.2'; did you mean backbone.stages.2"),
    (['--layer', 'xyz'], 'it begins with one of data_preprocessor, backbone, neck, bbox_head'),
    (['--layer', 'data_preprocessor'], 'layer data_preprocessor returns no map (N, C, H, W)'),
    (['--device', 'gpu'], '--device gpu: must be cpu, cuda or cuda:N'),
    (['--method', 'gradcam', '--class', 'cat'], '--class cat: the classes are square, wide, tall'),
])
def test_what_is_not_there_is_one_line(cam, capsys, options, message):
    assert cam(*options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('error: ') and message in error


def test_an_exported_file_has_no_layers(run_command, tiny_config, shared_coco_folder, capsys):
    assert run_command('cam', tiny_config, 'model.onnx', shared_coco_folder / 'val' / '000001.jpg') == 2
    assert 'model.onnx: an exported file has no layers to look at' in capsys.readouterr().err
