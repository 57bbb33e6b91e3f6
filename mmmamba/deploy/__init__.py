"""What makes a trained model ready for inference, and a model's training faster."""
from mmmamba.deploy.fuse import fuse, fuse_for_training

__all__ = ['fuse', 'fuse_for_training']
