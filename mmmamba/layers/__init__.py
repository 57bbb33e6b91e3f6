"""The papers' blocks, in plain PyTorch: a file for each paper, and names as in the papers."""
from mmmamba.layers.common import ConvNormAct, DropPath, LayerNorm2d, Mlp
from mmmamba.layers.efficient_vmamba import EVSSBlock, InvertedResidual, PatchEmbed, PatchMerging, SqueezeExcitation
from mmmamba.layers.local_mamba import LocalSS2D, LocalVimMixer, LocalVSSBlock
from mmmamba.layers.mamba_vision import (
    Attention,
    ConvStem,
    MambaVisionBlock,
    MambaVisionMixer,
    ResidualConvBlock,
    Windowed,
)
from mmmamba.layers.mamba_yolo import (
    MLPS,
    ConvMlp,
    GatedMlp,
    LSBlock,
    ODSSBlock,
    ResConvMlp,
    RGBlock,
    SimpleStem,
    VisionClueMerge,
)
from mmmamba.layers.ss2d import SS2D
from mmmamba.layers.vim import MambaBranch, PositionedPatches, VimBlock, VimMixer
from mmmamba.layers.vmamba import VSSBlock
from mmmamba.layers.yolov8 import SPPF, C2f, MaskPrototypes

__all__ = [
    'MLPS', 'SPPF', 'SS2D', 'Attention', 'C2f', 'ConvMlp', 'ConvNormAct', 'ConvStem', 'DropPath', 'EVSSBlock',
    'GatedMlp', 'InvertedResidual', 'LSBlock', 'LayerNorm2d', 'LocalSS2D', 'LocalVSSBlock', 'LocalVimMixer',
    'MambaBranch', 'MambaVisionBlock', 'MambaVisionMixer', 'MaskPrototypes', 'Mlp', 'ODSSBlock', 'PatchEmbed',
    'PatchMerging', 'PositionedPatches', 'RGBlock', 'ResConvMlp', 'ResidualConvBlock', 'SimpleStem',
    'SqueezeExcitation', 'VSSBlock', 'VimBlock', 'VimMixer', 'VisionClueMerge', 'Windowed'
]
