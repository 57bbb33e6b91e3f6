from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_detector import CONFIG

from mmmamba.analysis import build_detector, count_detector
from mmmamba.analysis.measure import available_memory
from mmmamba.analysis.measurement import Task, failure_of, measure, random_batch

CPU = torch.device('cpu')
ROOT = Path(__file__).parents[2]
TRAINABLE = f"""{CONFIG}
model['backbone'].update(init_cfg=dict(type='Pretrained', checkpoint='absent.pth'))
model.update(train_cfg=dict(assigner=dict(type='BatchTaskAlignedAssigner', topk=10, alpha=0.5, beta=6.0)))
"""


@pytest.fixture
def config(tmp_path, mmdet_scope):
    path = tmp_path / 'tiny.py'
    path.write_text(TRAINABLE)
    return str(path)


@pytest.mark.parametrize('pass_, dtype', [('forward', 'float32'), ('training', 'float32'), ('training', 'bfloat16')])
def test_measures_a_pass(config, pass_, dtype):
    threads = torch.get_num_threads()
    result = measure(Task(config, 64, dtype, pass_, threads=threads, runs=3))
    assert 0 <= result['memory_mib'] < result['total_mib']
    assert 0 < result['p20_ms'] <= result['median_ms'] <= result['p80_ms']
    assert result['images_per_s'] == pytest.approx(1e3 / result['median_ms'], rel=1e-4)
    cost = count_detector(build_detector(config), 64, 64).total
    assert result['parameters'] == cost.parameters
    assert result['linear_gflops'] == pytest.approx(cost.linear_flops / 1e9, abs=1e-6)
    assert result['scan_gflops'] == pytest.approx(cost.scan_flops / 1e9, abs=1e-6) and cost.scan_flops


def test_training_needs_more_memory_than_a_forward_pass(config):
    memory = [measure(Task(config, 256, pass_=pass_, threads=torch.get_num_threads(), runs=2))['memory_mib']
              for pass_ in ('forward', 'training')]
    assert 0 < 2 * memory[0] < memory[1]


def test_a_mask_detector_trains_on_the_random_batch(mmdet_scope):
    detector = build_detector(str(ROOT / 'configs/efficient_vmamba/mask-rcnn_efficient-vmamba-t_fpn_amp-1x_coco.py'))
    losses = detector.train().loss(*random_batch(64, CPU))
    assert torch.isfinite(losses['loss_mask'])


def test_boxes_are_inside_of_the_image():
    image, [sample] = random_batch(96, CPU)
    boxes = sample.gt_instances.bboxes
    assert image.shape == (1, 3, 96, 96)
    assert (boxes >= 0).all() and (boxes <= 96).all() and (boxes[:, 2:] - boxes[:, :2] >= 9.5).all()


PEAK = """
import torch
from mmmamba.analysis.measure import MIB, PeakMemory
memory = PeakMemory(torch.device('cpu'))
kept = torch.ones(16 * MIB // 4)
memory.start()
first = torch.ones(64 * MIB // 4)
del first
second = torch.ones(96 * MIB // 4)
del second
print(*(size / MIB for size in (*memory.stop(), kept.nbytes)))
"""


def test_peak_of_the_process_is_what_exists_at_once():
    # In a process of its own, as measurements are: what ran before in this one has its own ways with the heap.
    done = subprocess.run([sys.executable, '-c', PEAK], capture_output=True, text=True, check=True)
    above, total, kept = map(float, done.stdout.splitlines()[-1].split())
    assert above == pytest.approx(96, abs=4) and total > above + kept


def test_available_memory_is_part_of_the_machine():
    assert 0 < available_memory() < 2**50


@pytest.mark.parametrize('limit, used, available', [
    ('3000\n', '1000\n', 2000), ('1000', '3000', 0), ('max', '1', None), (None, '1', None),
    (str(2**63 - 4096), '1', None),
])
def test_available_memory_is_part_of_the_container(monkeypatch, tmp_path, limit, used, available):
    files = tmp_path / 'limit', tmp_path / 'used'
    for path, text in zip(files, (limit, used)):
        if text is not None:
            path.write_text(text)
    monkeypatch.setattr('mmmamba.analysis.measure.memory._CONTROL_GROUPS', [files])
    assert available_memory() == available if available is not None else available_memory() > 2**20


@pytest.mark.parametrize('error, fits, failure', [
    (torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB'), False, 'out of memory'),
    (MemoryError('The native scan could not allocate its workspace.'), False, 'out of memory'),
    (RuntimeError('could not create a primitive'), False, 'out of memory'),
    (RuntimeError('could not create a primitive descriptor for a convolution'), True,
     'RuntimeError: could not create a primitive descriptor for a convolution'),
    (RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`'), False,
     'out of memory'),
    (RuntimeError('cuDNN error: CUDNN_STATUS_ALLOC_FAILED'), False, 'out of memory'),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), False, 'out of memory'),
    (RuntimeError('selected index k\n out of range'), True, 'RuntimeError: selected index k out of range'),
])
def test_failures(error, fits, failure):
    assert failure_of(error) == dict(failure=failure, fits=fits)
