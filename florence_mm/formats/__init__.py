"""File formats, one module each: read bytes or rows into checked Python values, and write them.

Not here: samples, labels or seeds, which data sets make.
"""
