"""Embedded corpora, made from the handwritten digits that scikit-learn ships: digits, scenes, clips, questions.

Not here: stand-ins whose content nobody scores (``smoke``).
"""
