"""Public files into ours, once, before any training."""
