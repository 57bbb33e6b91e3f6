"""Text that comes from outside, in figures."""
from __future__ import annotations


def literal(text: str) -> str:
    """Keeps matplotlib from reading dollar signs as the borders of a formula.

    Args:
        text: Any text.

    Returns:
        What matplotlib shows as that text, on one line.
    """
    return ' '.join(text.split()).replace('$', r'\$')
