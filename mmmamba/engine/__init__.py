"""Training parts: optimizer, schedules, mixed precision and hooks; imported for their registrations."""
from mmmamba.engine.atomic_backend import AtomicLocalBackend
from mmmamba.engine.checkpoint import latest_checkpoint, load_checkpoint_checked
from mmmamba.engine.distributed import prepare_distributed
from mmmamba.engine.hooks import (
    AtomicCheckpointHook,
    ClassCountHook,
    ConfigOnResumeHook,
    ExactResumeHook,
    FusedInferenceHook,
    MissedValidationHook,
    NonFiniteLossHook,
    ScaleWeightDecayHook,
    TrainingClockHook,
    UnreadableImagesHook,
)
from mmmamba.engine.memory import keep_freed_memory
from mmmamba.engine.optimizers import AutocastOptimWrapper, YOLOOptimWrapperConstructor
from mmmamba.engine.runner import CheckedRunner
from mmmamba.engine.schedulers import WarmupLinearLR, WarmupMomentum
from mmmamba.engine.strict_vis_backend import StrictLocalVisBackend

__all__ = [
    'AtomicCheckpointHook', 'AtomicLocalBackend', 'AutocastOptimWrapper', 'CheckedRunner', 'ClassCountHook',
    'ConfigOnResumeHook', 'ExactResumeHook', 'FusedInferenceHook', 'MissedValidationHook', 'NonFiniteLossHook',
    'ScaleWeightDecayHook', 'StrictLocalVisBackend', 'TrainingClockHook', 'UnreadableImagesHook', 'WarmupLinearLR',
    'WarmupMomentum', 'YOLOOptimWrapperConstructor', 'keep_freed_memory', 'latest_checkpoint',
    'load_checkpoint_checked', 'prepare_distributed'
]
