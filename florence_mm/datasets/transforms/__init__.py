"""Transforms of image-text-label samples."""
