from mmmamba.engine.optimizers.autocast_optim_wrapper import AutocastOptimWrapper
from mmmamba.engine.optimizers.yolo_optim_wrapper_constructor import YOLOOptimWrapperConstructor

__all__ = ['AutocastOptimWrapper', 'YOLOOptimWrapperConstructor']
