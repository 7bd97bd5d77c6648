"""Mends for the gaps of today's OpenMMLab packages; the only place that touches other people's modules."""


def install() -> None:
    """Apply every mend that the installed packages need; repeated calls change nothing."""
