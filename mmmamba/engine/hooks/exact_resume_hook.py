"""What mmengine's checkpoints leave out of the state of a run."""
from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.dist import broadcast_object_list
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmmamba.convert import require_fit
from mmmamba.seeding import seed_everything


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes a run that is resumed from a checkpoint end with the weights of one that was never stopped.

    mmengine restores weights, EMA, optimizer, loss scale and schedules. This hook adds

    - random states (DropPath, Dropout): a function of (seed, epoch, batch, rank), set anew before every iteration;
    - the order of the images, where no seed was configured: the sampler gets the seed kept in the checkpoint;
    - gradients that were accumulated but not yet applied (``accumulative_counts``).

    The images' augmentation is the affair of ``SeededSampler`` and ``SeededDataset``. With several processes the
    pending gradients differ and are not kept: let ``accumulative_counts`` divide the iterations of an epoch there.
    CUDA kernels that add atomically are exact only with ``randomness=dict(deterministic=True)``.
    """

    # Before EMAHook, which would stumble over the weights of another model.
    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Takes the seed of the first process, which after resuming is that of the checkpoint."""
        seed = [runner.seed]
        broadcast_object_list(seed)
        self.seed = seed[0]
        loader = runner.train_dataloader
        for sampler in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None)):
            if hasattr(sampler, 'seed'):
                sampler.seed = self.seed

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Seeds what the main process draws in this iteration."""
        seed_everything(self.seed, runner.epoch, batch_idx, runner.rank)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds pending gradients to a checkpoint that can be resumed from."""
        wrapper = runner.optim_wrapper
        pending = wrapper.inner_count % wrapper._accumulative_counts != 0
        if pending and 'optimizer' in checkpoint and runner.world_size == 1:
            checkpoint['pending_gradients'] = {name: parameter.grad.cpu() for name, parameter
                                               in _model(runner).named_parameters() if parameter.grad is not None}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuses to resume from another model's checkpoint, which mmengine would do in part; restores gradients."""
        if not runner._resume:
            return
        model = _model(runner)
        require_fit(model.state_dict(), checkpoint['state_dict'],
                    f'the checkpoint to resume from does not fit this {type(model).__name__}')
        gradients = checkpoint.get('pending_gradients', {})
        for name, parameter in model.named_parameters():
            if name in gradients:
                parameter.grad = gradients[name].to(parameter)


def _model(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
