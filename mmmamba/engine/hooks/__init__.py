from mmmamba.engine.hooks.atomic_checkpoint_hook import AtomicCheckpointHook
from mmmamba.engine.hooks.class_count_hook import ClassCountHook
from mmmamba.engine.hooks.config_on_resume_hook import ConfigOnResumeHook
from mmmamba.engine.hooks.exact_resume_hook import ExactResumeHook
from mmmamba.engine.hooks.fine_tune_hook import FineTuneHook
from mmmamba.engine.hooks.fused_layers_hook import FusedLayersHook
from mmmamba.engine.hooks.non_finite_loss_hook import NonFiniteLossHook
from mmmamba.engine.hooks.progress_hook import ProgressHook
from mmmamba.engine.hooks.stop_signal_hook import StopSignalHook, TrainingStopped
from mmmamba.engine.hooks.unreadable_images_hook import UnreadableImagesHook
from mmmamba.engine.hooks.validation_hooks import (
    EncodedMasksHook,
    MissedValidationHook,
    SameBuffersHook,
    TrainingClockHook,
)

__all__ = [
    'AtomicCheckpointHook', 'ClassCountHook', 'ConfigOnResumeHook', 'EncodedMasksHook', 'ExactResumeHook',
    'FineTuneHook', 'FusedLayersHook', 'MissedValidationHook', 'NonFiniteLossHook', 'ProgressHook',
    'SameBuffersHook', 'StopSignalHook', 'TrainingClockHook', 'TrainingStopped', 'UnreadableImagesHook'
]
