"""Training parts: optimizer, schedules, mixed precision and hooks; imported for their registrations."""
from mmmamba.engine.backends import AtomicLocalBackend, StrictLocalVisBackend
from mmmamba.engine.checkpoint import latest_checkpoint, load_checkpoint_checked
from mmmamba.engine.cpu import keep_freed_memory
from mmmamba.engine.data_parallel import CheckedDataParallel
from mmmamba.engine.hooks import (
    AtomicCheckpointHook,
    ClassCountHook,
    ConfigOnResumeHook,
    EncodedMasksHook,
    ExactResumeHook,
    FineTuneHook,
    FusedLayersHook,
    MissedValidationHook,
    NonFiniteLossHook,
    ProgressHook,
    SameBuffersHook,
    StopSignalHook,
    TrainingClockHook,
    TrainingStopped,
    UnreadableImagesHook,
)
from mmmamba.engine.optimizers import (
    AutocastOptimWrapper,
    LayerDecayOptimWrapperConstructor,
    ScaleWeightDecayHook,
    YOLOOptimWrapperConstructor,
)
from mmmamba.engine.processes import prepare_distributed
from mmmamba.engine.runner import CheckedRunner
from mmmamba.engine.schedulers import WarmupLinearLR, WarmupMomentum
from mmmamba.engine.train_loop import ResumableTrainLoop

__all__ = [
    'AtomicCheckpointHook', 'AtomicLocalBackend', 'AutocastOptimWrapper', 'CheckedDataParallel', 'CheckedRunner',
    'ClassCountHook', 'ConfigOnResumeHook', 'EncodedMasksHook', 'ExactResumeHook', 'FineTuneHook', 'FusedLayersHook',
    'LayerDecayOptimWrapperConstructor', 'MissedValidationHook', 'NonFiniteLossHook', 'ProgressHook',
    'ResumableTrainLoop', 'SameBuffersHook', 'ScaleWeightDecayHook', 'StopSignalHook', 'StrictLocalVisBackend',
    'TrainingClockHook', 'TrainingStopped', 'UnreadableImagesHook', 'WarmupLinearLR', 'WarmupMomentum',
    'YOLOOptimWrapperConstructor', 'keep_freed_memory', 'latest_checkpoint', 'load_checkpoint_checked',
    'prepare_distributed'
]
