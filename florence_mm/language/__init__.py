"""Text labels, prompts, class names and answers: what texts mean to data sets and models alike."""
