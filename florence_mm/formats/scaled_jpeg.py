"""A JPEG file that is decoded once it is known which part is needed, and how many pixels of it.

A decoder makes a half or a quarter of height and width by a smaller inverse cosine transform. What remains is to read
the entropy-coded data, more than half of the time of a whole image. An eighth would save a tenth more, but one pixel a
block does not show where a file ends early (:func:`florence_mm.formats.jpeg.ends_early`).
"""

from dataclasses import dataclass

import numpy as np

from florence_mm.errors import DataError

from .image import decode_file, jpeg_size


@dataclass(frozen=True)
class UndecodedJpeg:
    """A JPEG file of which only the header has been read.

    Attributes:
        data: The file's content.
        path: The file, for messages.
        source: Put before messages, as in "train.jsonl, line 3: ".
        shape: Height and width when upright.
    """

    data: bytes
    path: str
    source: str
    shape: tuple[int, int]

    def decode_part(self, box: tuple[int, int, int, int], least: tuple[int, int]) -> np.ndarray:
        """Decode a part of the image, at a half or a quarter of its size if that leaves enough pixels.

        Args:
            box: Top, left, height and width of the part, in pixels of the whole image.
            least: Height and width that the result has at least, if the part has them.

        Returns:
            ``(h, w, 3)`` uint8 RGB. Of a smaller image its edges are rounded to whole pixels, and if a side of a turned
            file is no multiple of 4, moved by less than one.

        Raises:
            DataError: the file is damaged.
        """
        top, left, height, width = box
        reduction = next((by for by in (4, 2) if height >= by * least[0] and width >= by * least[1]), 1)
        image = decode_file(self.data, self.path, None, self.source, reduction)
        if image.shape[:2] != tuple(-(-side // reduction) for side in self.shape):
            raise DataError(
                f'{self.source}the header of the image {self.path} does not say how it is turned; write the file '
                'again, or load it without scaled=True'
            )
        top, bottom, left, right = (
            (2 * edge + reduction) // (2 * reduction) for edge in (top, top + height, left, left + width)
        )
        return image[top:bottom, left:right]


def undecoded_jpeg(data: bytes, path: str, source: str = '') -> UndecodedJpeg | None:
    """Read the header of an image file; None unless it is a JPEG file that states its size."""
    shape = jpeg_size(data)
    return None if shape is None else UndecodedJpeg(data, path, source, shape)
