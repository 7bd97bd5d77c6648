"""Hashes of a pair: the perceptual hash of its picture, and the number that samples it.

The perceptual hash is that of the package ImageHash (``phash``, hash_size 8, highfreq_factor 4), after N. Krawetz,
"Looks like it", 2011: grey values at 32 x 32, their discrete cosine transform, and of the 8 x 8 lowest frequencies
whether each is above the median of all 64. It is computed with integers, so that no rounding decides a bit; ImageHash
shrinks pictures by a Lanczos filter and not by areas, hence differs by a bit in some pictures.
"""

import hashlib

import cv2
import numpy as np

#: Height and width at which the picture is transformed.
SIDE = 32
#: Shorter side that a picture decoded at reduced size must keep: twice :data:`SIDE`, so that areas are averaged.
LEAST_SIDE = 2 * SIDE
_LOW = 8
# DCT-II without normalisation, as SciPy's dct and so ImageHash: the first row is not divided by the root of two
_COSINES = np.rint(2**14 * np.cos(np.pi / SIDE * (np.arange(SIDE) + 0.5) * np.arange(_LOW)[:, None])).astype(
    np.int64
)  # (8, 32)


def perceptual_hash(image: np.ndarray) -> int:
    """Hash a picture to 64 bits, of which few differ between pictures that look the same.

    Saving as JPEG and scaling change at most 3 bits, as a rule; crops and flips change about half of them.

    Args:
        image: ``(H, W)`` uint8 grey or ``(H, W, 3)`` uint8 RGB.

    Returns:
        the bits as a number; the first, of the lowest frequency, is the highest.
    """
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.int64)
    low = (_COSINES @ small @ _COSINES.T).ravel()  # (64,); at most 2**46
    middle = np.partition(low, (31, 32))[31:33].sum()  # twice the median
    return int.from_bytes(np.packbits(2 * low > middle).tobytes(), 'big')


def sampling_hash(seed: int, sample_id: int) -> int:
    """Hash the id of a sample to 64 bits; the samples with the smallest ones are a random choice.

    The same on every machine and engine, unlike the hash functions of databases.

    Args:
        seed: of the run; another one gives another choice.
        sample_id: see :func:`florence_mm.curation.columns.make_id`.
    """
    data = seed.to_bytes(8, 'big') + sample_id.to_bytes(8, 'big')
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'big')
