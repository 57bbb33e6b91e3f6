"""What makes a trained model ready for inference."""
from mmmamba.deploy.fuse import fuse

__all__ = ['fuse']
