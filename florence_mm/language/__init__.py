"""What words mean to data sets and models alike: text labels, prompts, class names, normalised answers.

Not here: tokenizers, which belong to a model.
"""
