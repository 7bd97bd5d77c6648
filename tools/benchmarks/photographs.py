"""Generated pictures with the statistics of photographs, for benchmarks that decode."""

from io import BytesIO

import cv2
import numpy as np
from PIL import Image


def natural(seed: int, width: int, height: int) -> np.ndarray:
    """Draw a picture ``(H, W, 3)`` uint8 with the statistics of photographs.

    Shapes of all sizes that hide each other ("dead leaves"), texture that falls with the frequency, a little noise.
    """
    rng = np.random.default_rng(seed)
    image = np.empty((height, width, 3), np.float32)
    image[:] = rng.uniform(40, 200, 3)
    largest = min(height, width) / 3
    # radii with the density r ** -3 between two pixels and a third of the picture
    for radius in (2**-2 - rng.random(4000) * (2**-2 - largest**-2)) ** -0.5:
        colour = np.clip(rng.normal(120, 55) + rng.normal(0, 25, 3), 0, 255).tolist()
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = (int(radius), max(1, int(radius * rng.uniform(0.4, 1))))
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    side = 2 ** int(np.ceil(np.log2(max(width, height))))
    for octave in range(1, 8):
        noise = rng.normal(0, 1.5 * 1.35**octave, (side >> octave, side >> octave)).astype(np.float32)
        image += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)[:height, :width, None]
    image = cv2.GaussianBlur(image, (0, 0), 0.6) + rng.normal(0, 1.5, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def natural_jpeg(seed: int, width: int, height: int, quality: int = 90) -> bytes:
    """Draw a picture as :func:`natural` does, and save it as a JPEG file."""
    file = BytesIO()
    Image.fromarray(natural(seed, width, height)).save(file, 'JPEG', quality=quality)
    return file.getvalue()
