from mmmamba.engine.optimizers.autocast_optim_wrapper import AutocastOptimWrapper
from mmmamba.engine.optimizers.layer_decay import LayerDecayOptimWrapperConstructor
from mmmamba.engine.optimizers.yolov8 import ScaleWeightDecayHook, YOLOOptimWrapperConstructor

__all__ = ['AutocastOptimWrapper', 'LayerDecayOptimWrapperConstructor', 'ScaleWeightDecayHook',
           'YOLOOptimWrapperConstructor']
