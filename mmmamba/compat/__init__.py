"""What lets mmdet 3.3 run on current PyTorch without compiled mmcv."""


def install() -> None:
    """Placeholder until the operators land."""
