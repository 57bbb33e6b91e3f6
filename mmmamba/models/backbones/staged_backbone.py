"""What the backbones of four stages share: the order of their modules, outputs, evaluation of norms."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmmamba.models.backbones.base_backbone import BaseBackbone
from mmmamba.models.utils import NUM_STAGES


class StagedBackbone(BaseBackbone):
    """A stem and up to four stages, of strides 4, 8, 16 and 32.

    A subclass makes ``self.stem``, ``self.stages``, ``self.downsamples`` (one for each stage, or for each but the
    first) and, if ``has_sppf``, ``self.sppf`` at the end of the fourth, then calls :meth:`freeze`. Stages after the
    last of ``out_indices`` are not made. If the returned maps have norms of their own, the subclass makes
    ``self.out_norms`` with :meth:`make_out_norms`.

    Args:
        out_indices: Stages whose maps are returned, ascending: 0 is C2 (stride 4), 3 is C5 (stride 32).
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages (with their down-sampling).
            The norms of the outputs are never frozen: no pretrained classifier has them.
        norm_eval: Keep the batch norms' running statistics as they are while training.
        init_cfg: See :class:`BaseBackbone`, also for errors.
    """

    has_sppf = False  # whether the fourth stage ends with one
    downsamples: nn.ModuleList
    stages: nn.ModuleList

    def __init__(self, out_indices: Sequence[int], frozen_stages: int, norm_eval: bool,
                 init_cfg: dict | list[dict] | None) -> None:
        super().__init__(('C2', 'C3', 'C4', 'C5'), out_indices, frozen_stages, init_cfg)
        self.norm_eval = norm_eval
        self.out_norms = nn.ModuleDict()

    def stage_modules(self, index: int) -> list[nn.Module]:
        """Returns the modules of stage ``index``, in the order in which they run."""
        first = len(self.stages) - len(self.downsamples)  # 1 if the stem alone comes before the first stage
        downsample = [self.downsamples[index - first]] if index >= first else []
        sppf = [self.sppf] if self.has_sppf and index == NUM_STAGES - 1 else []
        return [*downsample, self.stages[index], *sppf]

    def make_out_norms(self, widths: Sequence[int], norm_layer: Callable[[int], nn.Module]) -> nn.ModuleDict:
        """Makes a norm for each of the maps that are returned."""
        return nn.ModuleDict({str(index): norm_layer(widths[index]) for index in self.out_indices})

    def absent_modules(self) -> list[str]:
        """Returns names of modules that the whole backbone has and this one, for its ``out_indices``, has not."""
        absent = [f'out_norms.{index}' for index in range(NUM_STAGES) if index not in self.out_indices]
        if self.has_sppf and self.num_stages < NUM_STAGES:
            absent.append('sppf')
        for later in range(NUM_STAGES - self.num_stages):
            absent += [f'stages.{self.num_stages + later}', f'downsamples.{len(self.downsamples) + later}']
        return absent

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns the maps of the stages in ``out_indices``.

        Args:
            x: Images, (B, in_channels, H, W), of any size.

        Returns:
            (B, widths[i], ceil(H / stride), ceil(W / stride)) for each i of ``out_indices``.
        """
        # The scans and the layer norms read channels-last; converted once here, every map stays so.
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        outs = []
        for index in range(self.num_stages):
            for module in self.stage_modules(index):
                x = module(x)
            if index in self.out_indices:
                outs.append(self.out_norms[str(index)](x) if self.out_norms else x)
        return tuple(outs)

    def train(self, mode: bool = True) -> StagedBackbone:
        """Sets the mode as ``nn.Module.train`` does, but what is frozen stays frozen."""
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
