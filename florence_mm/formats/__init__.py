"""File formats, one file each: bytes or rows in, checked Python values out, and back.

Not here: samples, labels or seeds, which data sets make of them.
"""
