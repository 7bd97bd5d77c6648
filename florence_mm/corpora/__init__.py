"""Embedded data sets, generated from scikit-learn's handwritten digits: digits, scenes, clips, questions.

Not here: random data for smoke tests (``smoke``).
"""
