from mmmamba.engine.optimizers.autocast_optim_wrapper import AutocastOptimWrapper
from mmmamba.engine.optimizers.yolov8 import ScaleWeightDecayHook, YOLOOptimWrapperConstructor

__all__ = ['AutocastOptimWrapper', 'ScaleWeightDecayHook', 'YOLOOptimWrapperConstructor']
