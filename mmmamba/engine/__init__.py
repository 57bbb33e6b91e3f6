"""Training parts: optimizer, schedules, mixed precision and hooks; imported for their registrations."""
from mmmamba.engine.atomic_backend import AtomicLocalBackend
from mmmamba.engine.checkpoint import load_checkpoint_checked
from mmmamba.engine.distributed import prepare_distributed
from mmmamba.engine.hooks import (
    AtomicCheckpointHook,
    ClassCountHook,
    ExactResumeHook,
    NonFiniteLossHook,
    ScaleWeightDecayHook,
    TrainingClockHook,
    UnreadableImagesHook,
)
from mmmamba.engine.memory import keep_freed_memory
from mmmamba.engine.optimizers import AutocastOptimWrapper, YOLOOptimWrapperConstructor
from mmmamba.engine.schedulers import WarmupLinearLR, WarmupMomentum

__all__ = [
    'AtomicCheckpointHook', 'AtomicLocalBackend', 'AutocastOptimWrapper', 'ClassCountHook', 'ExactResumeHook',
    'NonFiniteLossHook', 'ScaleWeightDecayHook', 'TrainingClockHook', 'UnreadableImagesHook', 'WarmupLinearLR',
    'WarmupMomentum', 'YOLOOptimWrapperConstructor', 'keep_freed_memory', 'load_checkpoint_checked',
    'prepare_distributed'
]
