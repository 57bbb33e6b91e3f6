"""What all backbones of this package share: which stages they have, freezing, strict pretrained weights."""
from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule, PretrainedInit
from mmengine.model.weight_init import update_init_info
from torch import nn

from mmmamba.errors import InputError
from mmmamba.models.backbones.pretrained import load_pretrained


class BaseBackbone(BaseModule):
    """A stem and stages after it, of which those after the last output are not made: they would get no gradient.

    A subclass makes ``self.stem`` and its stages, says with :meth:`stage_modules` and :meth:`absent_modules` which
    they are, and calls :meth:`freeze`.

    Args:
        stage_names: Names of all stages, for messages.
        out_indices: Stages whose maps are returned, ascending.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages.
        init_cfg: mmengine's initialisation. ``dict(type='Pretrained', checkpoint=...)`` takes what
            :func:`mmmamba.models.backbones.pretrained.load_pretrained` does, which is strict.

    Raises:
        InputError: ``out_indices`` or ``frozen_stages`` name no stage.
    """

    stem: nn.Module

    def __init__(self, stage_names: Sequence[str], out_indices: Sequence[int], frozen_stages: int,
                 init_cfg: dict | list[dict] | None) -> None:
        super().__init__(init_cfg)
        out_indices = tuple(out_indices)
        if not out_indices or list(out_indices) != sorted(set(out_indices) & set(range(len(stage_names)))):
            raise InputError(f'out_indices must be ascending and among 0 ({stage_names[0]}) … '
                             f'{len(stage_names) - 1} ({stage_names[-1]}), got {out_indices}')
        if frozen_stages not in range(-1, out_indices[-1] + 2):
            raise InputError(f'frozen_stages must be -1 (none), 0 (stem) or at most {out_indices[-1] + 1} with '
                             f'out_indices {out_indices}, got {frozen_stages}')
        self.out_indices = out_indices
        self.num_stages = out_indices[-1] + 1
        self.frozen_stages = frozen_stages

    def stage_modules(self, index: int) -> list[nn.Module]:
        """Returns the modules of stage ``index``, in the order in which they run."""
        raise NotImplementedError

    def absent_modules(self) -> list[str]:
        """Returns names of modules that the whole backbone has and this one, for its ``out_indices``, has not."""
        raise NotImplementedError

    def init_weights(self) -> None:
        """Initialises as mmengine does, but pretrained weights have to fit.

        Raises:
            InputError: They do not.
        """
        given = self.init_cfg
        cfgs = [given] if isinstance(given, dict) else list(given or ())
        pretrained = [cfg for cfg in cfgs if cfg['type'] in ('Pretrained', PretrainedInit)]
        others = [cfg for cfg in cfgs if cfg not in pretrained]
        self.init_cfg = [*others, *(dict(cfg, type=_StrictPretrainedInit) for cfg in pretrained)]
        super().init_weights()
        self.init_cfg = given

    def freeze(self) -> None:
        """Puts the frozen modules into evaluation and takes their gradients away."""
        if self.frozen_stages < 0:
            return
        frozen = [self.stem]
        for index in range(self.frozen_stages):
            frozen += self.stage_modules(index)
        for module in frozen:
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> BaseBackbone:
        """Sets the mode as ``nn.Module.train`` does, but what is frozen stays frozen."""
        super().train(mode)
        self.freeze()
        return self


class _StrictPretrainedInit(PretrainedInit):
    """mmengine's ``Pretrained`` by :func:`load_pretrained`. It has no use for ``map_location``: weights are copied."""

    def __call__(self, module: BaseBackbone) -> None:
        load_pretrained(module, self.checkpoint, self.prefix, module.absent_modules())
        update_init_info(module, init_info=self._get_init_info())
