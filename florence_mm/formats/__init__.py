"""File formats, one file each: bytes or rows in, checked Python values out."""
