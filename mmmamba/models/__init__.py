"""What a config names: backbones, necks, heads, assigners and losses, registered in mmdet's registries."""
from mmmamba.models import backbones, dense_heads, losses, necks, task_modules, test_time_augs

__all__ = ['backbones', 'dense_heads', 'losses', 'necks', 'task_modules', 'test_time_augs']
