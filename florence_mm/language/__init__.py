"""Text handling shared by data sets and models: text labels, prompts, class names, normalised answers.

Not here: tokenizers, which belong to a model.
"""
