"""Image-text-label data sets and their transforms."""

from . import transforms
