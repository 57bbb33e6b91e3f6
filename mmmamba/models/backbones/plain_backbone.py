"""What plain backbones share: patches with positions, blocks of one width, maps of stride 16."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmmamba.errors import InputError
from mmmamba.layers.vim import PositionedPatches, rope_tables
from mmmamba.models.backbones.base_backbone import BaseBackbone
from mmmamba.models.utils import require_positive_integers


class PlainBackbone(BaseBackbone):
    """Patches of 16 x 16 pixels with a position embedding, then blocks that keep their number and width.

    A subclass makes ``self.blocks``, a :class:`mmmamba.layers.VimBlock` for each of ``range(self.num_stages)``, says
    with :meth:`output` what is returned of a block, and calls :meth:`freeze`.

    Args:
        depth: Blocks of the whole backbone.
        width: d, channels of every block.
        img_size: Side of the images whose grid the position embedding has, or their height and width. Images of any
            other size are taken too: the embedding is resized to their grid. So is that of pretrained weights to the
            backbone's own.
        in_channels: Channels of the image.
        rope: Whether rotary positions turn the channels before each block.
        out_indices: Blocks whose maps are returned, ascending; None for the last. Later ones are not made.
        frozen_stages: -1 freezes nothing, 0 the patches and positions, k these and the first k blocks.
        init_cfg: See :class:`BaseBackbone`, also for errors.
    """

    stem: PositionedPatches
    blocks: nn.ModuleList

    def __init__(self, depth: int, width: int, img_size: int | Sequence[int], in_channels: int, rope: bool,
                 out_indices: Sequence[int] | None, frozen_stages: int, init_cfg: dict | list[dict] | None) -> None:
        require_positive_integers('depth and width', (depth, width), 2)
        super().__init__([f'block {number}' for number in range(1, depth + 1)],
                         (depth - 1, ) if out_indices is None else out_indices, frozen_stages, init_cfg)
        sides = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        require_positive_integers('img_size', sides, 2)
        if rope and width % 4:  # half of the channels for each axis, in pairs
            raise InputError(f'rotary positions need a width that is a multiple of 4, got {width}')
        self.depth, self.width, self.rope = depth, width, rope
        self.stem = PositionedPatches(in_channels, width, (sides[0], sides[1]))

    def stage_modules(self, index: int) -> list[nn.Module]:
        """Returns block ``index``."""
        return [self.blocks[index]]

    def absent_modules(self) -> list[str]:
        """Returns names of blocks that the whole backbone has and this one, for its ``out_indices``, has not."""
        return [f'blocks.{index}' for index in range(self.num_stages, self.depth)]

    def rope_tables(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Returns cosines and sines for a grid of tokens, (B, H, W, d)."""
        _, height, width, channels = tokens.shape
        return rope_tables(height, width, channels, tokens)

    def output(self, index: int, hidden: Tensor, residual: Tensor) -> Tensor:
        """Returns what is given out after block ``index``, from what goes on to the next; all (B, H, W, d)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns the maps of the blocks in ``out_indices``.

        Args:
            x: Images, (B, in_channels, H, W), of any size; they are padded to whole patches.

        Returns:
            (B, width, ceil(H / 16), ceil(W / 16)) for each i of ``out_indices``.
        """
        hidden = self.stem(x)
        residual = torch.zeros_like(hidden, dtype=torch.promote_types(hidden.dtype, torch.float32))
        rope = self.rope_tables(residual) if self.rope else None
        outs = []
        for index, block in enumerate(self.blocks):
            hidden, residual = block(hidden, residual, rope)
            if index in self.out_indices:
                outs.append(self.output(index, hidden, residual).to(x.dtype).permute(0, 3, 1, 2))
        return tuple(outs)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Returns a parameter's layer and the number of layers, for a decay of learning rates over them.

        As mmpretrain's ViTs have it: 0 is the patches and positions, i + 1 block i, and the last all other parameters
        of the model.

        Args:
            param_name: Dotted name in the model.
            prefix: What the names of this backbone's parameters begin with in the model, e.g. ``'backbone.'``.
        """
        layers = self.depth + 2
        if param_name.startswith(f'{prefix}stem.'):
            return 0, layers
        if param_name.startswith(f'{prefix}blocks.'):
            return int(param_name[len(prefix):].split('.')[1]) + 1, layers
        return layers - 1, layers
