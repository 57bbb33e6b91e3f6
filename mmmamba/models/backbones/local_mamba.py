"""LocalMamba: scans in searched directions, on a hierarchy of maps (LocalVMamba) or on plain tokens (LocalVim)."""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

from mmdet.registry import MODELS
from torch import Tensor, nn

from mmmamba.layers import LayerNorm2d, LocalVimMixer, LocalVSSBlock, PatchEmbed, PatchMerging, VimBlock
from mmmamba.layers.vim import resize_bicubic, rope_tables
from mmmamba.models.backbones.plain_backbone import PlainBackbone
from mmmamba.models.backbones.staged_backbone import StagedBackbone
from mmmamba.models.utils import Directions, directions_of_scans, drop_path_rates, resolve_arch

_LETTERS = {'h': 'h', 'H': 'h_flip', 'v': 'v', 'V': 'v_flip', 'a': 'w2', 'A': 'w2_flip', 'b': 'w7', 'B': 'w7_flip'}


def _found(blocks: str) -> Directions:
    """Returns the directions of published blocks, written with a letter for each."""
    return [[_LETTERS[letter] for letter in block] for block in blocks.split()]


class LocalVMambaArch(NamedTuple):
    """Size of a LocalVMamba: blocks and channels of its four stages, and each block's directions if not cross."""

    depths: Sequence[int]
    widths: Sequence[int]
    directions: Directions | None = None


class LocalVimArch(NamedTuple):
    """Size of a LocalVim: its blocks, their channels, and the directions of each, if not cross."""

    depth: int
    width: int
    directions: Directions | None = None


_VIM_DIRECTIONS = _found(
    'hVbB HAbB hHvb hHvV hHvV hHvV HvVb HvVA hHvV hHvV hvVa hvVA hHVb HvVa hHvV hvaA vVab hHva hHAb vVaA')


@MODELS.register_module()
class LocalVMamba(StagedBackbone):
    """LocalVMamba (LocalMamba, arXiv 2403.09338)::

        image → patches → block × depths[0]  → LN = C2
              → merge   → block × depths[1]  → LN = C3
              → merge   → block × depths[2]  → LN = C4
              → merge   → block × depths[3]  → LN = C5

    The layer norms are those of the outputs; what goes on is the map before them.

    Args:
        arch: ``'t'`` or ``'s'``, with the directions that the authors found; None where ``depths`` and ``widths`` are
            given.
        depths, widths: Blocks and channels of each stage, C2 … C5, instead of the arch's.
        directions: For each block, or up to the last output, names of directions
            (:data:`mmmamba.ops.scan.orders.ORDERS`), instead of the arch's; ``tools/search_directions.py`` finds them.
            Without an arch they are those of 'cross'.
        released_columns: Put columns where the public code does, see :class:`mmmamba.layers.LocalSS2D`. For the
            authors' detectors alone: their classifiers were trained on square maps, where it is the same.
        in_channels: Channels of the image.
        out_indices, frozen_stages, init_cfg: See :class:`StagedBackbone`.
        with_cp: Recompute the blocks in the backward pass, for less memory and more time.
        drop_path_rate: Stochastic depth of the last block; it rises linearly from 0 at the first.

    Raises:
        InputError: An argument that names nothing, or out of range.
    """

    arch_settings = MappingProxyType({
        't': LocalVMambaArch((2, 2, 9, 2), (96, 192, 384, 768), _found(
            'hHbB HVaA HVAb HvVa hHVA HVaA hAbB hHvV hVbB HvaB vVaB hHVA VAbB HVAB HvbB')),
        's': LocalVMambaArch((2, 2, 27, 2), (96, 192, 384, 768), _found(
            'hvVB hHvb HvVb HvAb HvAb HVaB HvVb hvVb hvVb hvVB hHvV hvVa vVAb hHva HvVB hHvV hvVB hvVB hHVb HVAb HvVB '
            'vVbB hvVB HvVa hvVA hHvb hHbB hVaA hVab hvVB HvAb HVbB hvbB')),
    })

    def __init__(self, arch: str | None = 't', depths: Sequence[int] | None = None,
                 widths: Sequence[int] | None = None, directions: Directions | None = None,
                 released_columns: bool = False, in_channels: int = 3, out_indices: Sequence[int] = (0, 1, 2, 3),
                 frozen_stages: int = -1, with_cp: bool = False, drop_path_rate: float = 0.0,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(out_indices, frozen_stages, norm_eval=False, init_cfg=init_cfg)
        depths, widths, directions = resolve_arch(
            self.arch_settings, arch, depths=depths, widths=widths, directions=directions)
        of_blocks = directions_of_scans(directions, sum(depths), sum(depths[:self.num_stages]))
        drop_paths = drop_path_rates(drop_path_rate, depths)

        def block(stage: int) -> nn.Module:
            return LocalVSSBlock(widths[stage], next(of_blocks), released_columns, next(drop_paths), with_cp)

        self.stem = PatchEmbed(in_channels, widths[0])
        self.downsamples = nn.ModuleList(PatchMerging(widths[i], widths[i + 1]) for i in range(self.num_stages - 1))
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(stage) for _ in range(depths[stage]))) for stage in range(self.num_stages))
        self.out_norms = self.make_out_norms(widths, partial(LayerNorm2d, eps=1e-5))
        self.freeze()


@MODELS.register_module()
class LocalVim(PlainBackbone):
    """LocalVim (LocalMamba, arXiv 2403.09338), as the backbone of a detector::

        image → patches of 16 x 16 + positions → block × depth; LN(hidden state) of the last

    A block is that of :class:`Vim` with a mixer of four directions. A map of several strides comes from the neck,
    :class:`mmmamba.models.necks.SimpleFeaturePyramid`.

    Args:
        arch: ``'t'`` or ``'s'``, with the directions that the authors found; None where ``depth`` and ``width`` are
            given.
        depth, width: Blocks, and channels of each, instead of the arch's.
        directions: For each block, names of directions, as :class:`LocalVMamba` takes them.
        rms_norm: Whether the blocks have RMS norms, as the authors' classifiers, instead of layer norms, as their
            detectors.
        img_size: Side of the images whose grid the position embedding has, in pixels, or (height, width); images of
            other sizes are taken too. Rotary positions are those of this grid, resized as well.
        in_channels, out_indices, frozen_stages, init_cfg: See :class:`PlainBackbone`, also for errors. Each output has
            a layer norm of its own.
        with_cp: Recompute the blocks in the backward pass, for less memory and more time.
        drop_path_rate: Stochastic depth towards the end; it rises linearly from 0 at the first block.
    """

    arch_settings = MappingProxyType({
        't': LocalVimArch(20, 192, _VIM_DIRECTIONS),
        's': LocalVimArch(20, 384, _VIM_DIRECTIONS),
    })

    def __init__(self, arch: str | None = 't', depth: int | None = None, width: int | None = None,
                 directions: Directions | None = None, rms_norm: bool = False, img_size: int | Sequence[int] = 1024,
                 in_channels: int = 3, out_indices: Sequence[int] | None = None, frozen_stages: int = -1,
                 with_cp: bool = False, drop_path_rate: float = 0.0,
                 init_cfg: dict | list[dict] | None = None) -> None:
        depth, width, directions = resolve_arch(
            self.arch_settings, arch, depth=depth, width=width, directions=directions)
        super().__init__(depth, width, img_size, in_channels, True, out_indices, frozen_stages, init_cfg)
        # What a block drops is the hidden state of the block before it.
        drop_paths = [0.0, *drop_path_rates(drop_path_rate, (depth, ))]
        scans = directions_of_scans(directions, depth, self.num_stages)
        norm = nn.RMSNorm if rms_norm else nn.LayerNorm
        self.blocks = nn.ModuleList(
            VimBlock(LocalVimMixer(width, directions), norm(width, eps=1e-5), drop_path, with_cp)
            for directions, drop_path in islice(zip(scans, drop_paths), self.num_stages))
        self.out_norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-5) for _ in self.out_indices)
        self.freeze()

    def rope_tables(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Returns cosines and sines of the position embedding's grid, resized to that of the tokens, (B, H, W, d)."""
        _, height, width, channels = tokens.shape
        _, _, own_height, own_width = self.stem.pos_embed.shape
        cos, sin = (
            resize_bicubic(table.permute(2, 0, 1)[None], height, width)[0].permute(1, 2, 0)
            for table in rope_tables(own_height, own_width, channels, tokens))
        return cos, sin

    def output(self, index: int, hidden: Tensor, residual: Tensor) -> Tensor:
        """Returns the norm of the hidden state."""
        return self.out_norms[self.out_indices.index(index)](hidden)
