"""Floating-point operations of a scan, by formula."""
from __future__ import annotations


def scan_flops(batch: int, length: int, channels: int, states: int, rank: int = 0) -> int:
    """FLOPs of the recurrence and its skip connection: 9·B·L·D·N + 2·B·L·D, and 2·B·L·D·R where steps are projected.

    By the usual count the decay takes 3 (its argument and the exponential), the input 2, the state 2, the output 2.

    Args:
        batch: B.
        length: L, tokens that each channel visits.
        channels: D, over all heads.
        states: N.
        rank: R, of a step-size projection inside the scan; 0 for none.
    """
    return batch * length * channels * (9 * states + 2 + 2 * rank)


def scan_backward_flops(batch: int, length: int, channels: int, states: int, rank: int = 0) -> int:
    """FLOPs of the gradients, the states' second computation included: 21·B·L·D·N + 6·B·L·D + 6·B·L·D·R.

    For each state: the recurrence without its output 7; gradient of the state 2, handed to the step before 1; of C 2,
    of B 2, of the input 2; by way of the decay 1, then of the step size 2 and of A 2.
    """
    return batch * length * channels * (21 * states + 6 + 6 * rank)
