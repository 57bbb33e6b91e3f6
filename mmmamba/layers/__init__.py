"""The papers' blocks, in plain PyTorch: a file for each, named as in the papers."""
from mmmamba.layers.attention import Attention
from mmmamba.layers.c2f import C2f
from mmmamba.layers.conv_norm_act import ConvNormAct
from mmmamba.layers.conv_stem import ConvStem
from mmmamba.layers.drop_path import DropPath
from mmmamba.layers.evss_block import EVSSBlock
from mmmamba.layers.inverted_residual import InvertedResidual
from mmmamba.layers.ls_block import LSBlock
from mmmamba.layers.mamba_vision_block import MambaVisionBlock
from mmmamba.layers.mamba_vision_mixer import MambaVisionMixer
from mmmamba.layers.mlp import MLPS, ConvMlp, GatedMlp, Mlp, ResConvMlp
from mmmamba.layers.norm import LayerNorm2d
from mmmamba.layers.odss_block import ODSSBlock
from mmmamba.layers.patch_embed import PatchEmbed
from mmmamba.layers.patch_merging import PatchMerging
from mmmamba.layers.residual_conv_block import ResidualConvBlock
from mmmamba.layers.rg_block import RGBlock
from mmmamba.layers.simple_stem import SimpleStem
from mmmamba.layers.sppf import SPPF
from mmmamba.layers.squeeze_excitation import SqueezeExcitation
from mmmamba.layers.ss2d import SS2D
from mmmamba.layers.vision_clue_merge import VisionClueMerge
from mmmamba.layers.vss_block import VSSBlock
from mmmamba.layers.windowed import Windowed

__all__ = [
    'MLPS', 'SPPF', 'SS2D', 'Attention', 'C2f', 'ConvMlp', 'ConvNormAct', 'ConvStem', 'DropPath', 'EVSSBlock',
    'GatedMlp', 'InvertedResidual', 'LSBlock', 'LayerNorm2d', 'MambaVisionBlock', 'MambaVisionMixer', 'Mlp',
    'ODSSBlock', 'PatchEmbed', 'PatchMerging', 'RGBlock', 'ResConvMlp', 'ResidualConvBlock', 'SimpleStem',
    'SqueezeExcitation', 'VSSBlock', 'VisionClueMerge', 'Windowed'
]
