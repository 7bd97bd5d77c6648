"""Text handling shared by data sets and models: text labels, prompts, class names, normalised answers, and
the format of tasks that are answered by texts with regions.

Not here: tokenizers, which belong to a model.
"""
