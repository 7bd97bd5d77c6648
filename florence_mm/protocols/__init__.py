"""Evaluation protocols of the paper as runnable units, and the table of all of them.

Not here: metrics (``evaluation``), test loops of single configs (``engine``).
"""
