"""What ``make demo`` needs beside the tools: a data set composed on the spot, and pictures of the results.

Nothing here is imported by ``import mmmamba``; scikit-learn, scikit-image and matplotlib come with ``mmmamba[demo]``.
"""
