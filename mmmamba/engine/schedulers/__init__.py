from mmmamba.engine.schedulers.warmup import WarmupLinearLR, WarmupMomentum

__all__ = ['WarmupLinearLR', 'WarmupMomentum']
