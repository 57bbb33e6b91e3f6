"""Training parts: optimizer, schedules, mixed precision and hooks; imported for their registrations."""
from mmmamba.engine.backends import AtomicLocalBackend, StrictLocalVisBackend
from mmmamba.engine.checkpoint import latest_checkpoint, load_checkpoint_checked
from mmmamba.engine.cpu import keep_freed_memory, prepare_distributed
from mmmamba.engine.hooks.atomic_checkpoint_hook import AtomicCheckpointHook
from mmmamba.engine.hooks.class_count_hook import ClassCountHook
from mmmamba.engine.hooks.config_on_resume_hook import ConfigOnResumeHook
from mmmamba.engine.hooks.exact_resume_hook import ExactResumeHook
from mmmamba.engine.hooks.non_finite_loss_hook import NonFiniteLossHook
from mmmamba.engine.hooks.unreadable_images_hook import UnreadableImagesHook
from mmmamba.engine.hooks.validation_hooks import FusedInferenceHook, MissedValidationHook, TrainingClockHook
from mmmamba.engine.optimizers.autocast_optim_wrapper import AutocastOptimWrapper
from mmmamba.engine.optimizers.yolov8 import ScaleWeightDecayHook, YOLOOptimWrapperConstructor
from mmmamba.engine.runner import CheckedRunner
from mmmamba.engine.schedulers.warmup import WarmupLinearLR, WarmupMomentum

__all__ = [
    'AtomicCheckpointHook', 'AtomicLocalBackend', 'AutocastOptimWrapper', 'CheckedRunner', 'ClassCountHook',
    'ConfigOnResumeHook', 'ExactResumeHook', 'FusedInferenceHook', 'MissedValidationHook', 'NonFiniteLossHook',
    'ScaleWeightDecayHook', 'StrictLocalVisBackend', 'TrainingClockHook', 'UnreadableImagesHook', 'WarmupLinearLR',
    'WarmupMomentum', 'YOLOOptimWrapperConstructor', 'keep_freed_memory', 'latest_checkpoint',
    'load_checkpoint_checked', 'prepare_distributed'
]
