"""A diverging run stops before its weights replace good ones."""

import pytest
import torch
from mmengine.runner import Runner

from mmmamba.errors import InputError

import toy_training  # isort: skip  (this folder's)


@pytest.fixture(autouse=True)
def poison_hook():
    """Registers, for one test, a hook that spoils the run in its seventh iteration, the third of epoch 2."""
    from mmdet.registry import HOOKS
    from mmengine.hooks import Hook

    @HOOKS.register_module()
    class PoisonHook(Hook):
        def __init__(self, what, iteration=6):
            self.what = what
            self.iteration = iteration

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if self.what == 'loss' and runner.iter == self.iteration:
                data_batch['inputs'] = [image.float() * float('nan') for image in data_batch['inputs']]

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if self.what == 'weights' and runner.iter == self.iteration:
                runner.model.count.weight.data.fill_(float('inf'))

    yield
    HOOKS.module_dict.pop('PoisonHook')


@pytest.mark.parametrize('dtype', [None, 'float16'])
def test_nan_loss_names_iteration_images_and_last_good_checkpoint(shared_coco_folder, tmp_path, dtype):
    wrapper = dict(type='AutocastOptimWrapper', dtype=dtype) if dtype else None
    cfg = toy_training.config(shared_coco_folder, tmp_path / 'nan', workers=0, wrapper=wrapper,
                              hooks=(dict(type='PoisonHook', what='loss'),))
    with pytest.raises(InputError) as error:
        Runner.from_cfg(cfg).train()
    message = str(error.value)
    assert 'loss is nan at epoch 2, iteration 3 of 4' in message
    assert message.count('.jpg (id ') == 4
    assert '\n' not in message
    good = tmp_path / 'nan' / 'epoch_1.pth'
    assert f'the last good checkpoint is {good}' in message
    assert (tmp_path / 'nan' / 'last_checkpoint').read_text() == str(good)
    assert sorted(path.name for path in (tmp_path / 'nan').glob('*.pth*')) == ['epoch_1.pth']
    assert all(torch.isfinite(value).all() for value in torch.load(good)['state_dict'].values())


def test_spoilt_weights_are_not_saved(shared_coco_folder, tmp_path):
    cfg = toy_training.config(shared_coco_folder, tmp_path / 'weights', workers=0,
                              hooks=(dict(type='PoisonHook', what='weights', iteration=7),))
    with pytest.raises(InputError, match=r'no longer finite after epoch 2 \(first: count\.weight\).*epoch_1\.pth'):
        Runner.from_cfg(cfg).train()
    assert sorted(path.name for path in (tmp_path / 'weights').glob('*.pth*')) == ['epoch_1.pth']
