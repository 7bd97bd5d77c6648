"""Generated backgrounds of the embedded scenes: flat, gradients, noise of several scales, stripes, checks, discs.

Backgrounds are ``(H, W, 3)`` float32 RGB from 0 to 1. Variation within one stays below half of the contrast of
the digits on it, so that a digit is always visible.
"""

from collections.abc import Callable

import cv2
import numpy as np

# the weights of red, green and blue in brightness (ITU-R BT.601)
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def make_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a random background ``(size, size, 3)``, dark enough for lighter ink."""
    base = rng.uniform(0.05, 0.5, 3).astype(np.float32)
    field = _FIELDS[rng.integers(len(_FIELDS))](rng, size)  # (size, size) from -1 to 1
    tint = rng.uniform(-1, 1, 3).astype(np.float32)
    # half of the variation in brightness, half in colour
    tint = 0.5 * tint / np.abs(tint).max() + 0.5
    strength = rng.uniform(0.05, 0.16)
    grain = rng.standard_normal((size, size, 1), dtype=np.float32) * rng.uniform(0, 0.02)
    return np.clip(base + strength * field[..., None] * tint + grain, 0, 1)


def _coordinates(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column coordinates from -1 to 1, each ``(size, size)``."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    rows, columns = np.meshgrid(axis, axis, indexing='ij')
    return rows, columns


def _turned(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates rotated by a random angle."""
    rows, columns = _coordinates(size)
    angle = rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * rows + sin * columns, cos * columns - sin * rows


def _flat(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.zeros((size, size), dtype=np.float32)


def _gradient(rng: np.random.Generator, size: int) -> np.ndarray:
    return _turned(rng, size)[0] / np.float32(np.sqrt(2))


def _vignette(rng: np.random.Generator, size: int) -> np.ndarray:
    rows, columns = _coordinates(size)
    centre = rng.uniform(-0.6, 0.6, 2).astype(np.float32)
    distance = np.hypot(rows - centre[0], columns - centre[1])
    return 1 - 2 * distance / distance.max()


def _noise(rng: np.random.Generator, size: int) -> np.ndarray:
    field = np.zeros((size, size), dtype=np.float32)
    cells = int(rng.integers(2, 6))
    weight = 1.0
    while cells < size:
        coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        field += weight * cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        cells, weight = 2 * cells, weight / 2
    return field / np.abs(field).max()


def _stripes(rng: np.random.Generator, size: int) -> np.ndarray:
    wave = np.sin(_turned(rng, size)[0] * np.float32(rng.uniform(4, 40)) + np.float32(rng.uniform(0, 6)))
    return np.sign(wave) if rng.random() < 0.5 else wave


def _checks(rng: np.random.Generator, size: int) -> np.ndarray:
    rows, columns = _turned(rng, size)
    frequency = np.float32(rng.uniform(4, 20))
    return np.sign(np.sin(frequency * rows) * np.sin(frequency * columns))


def _discs(rng: np.random.Generator, size: int) -> np.ndarray:
    rows, columns = _coordinates(size)
    field = np.zeros((size, size), dtype=np.float32)
    for _ in range(int(rng.integers(3, 12))):
        centre, radius = rng.uniform(-1, 1, 2).astype(np.float32), rng.uniform(0.1, 0.5)
        field[np.hypot(rows - centre[0], columns - centre[1]) < radius] = rng.uniform(-1, 1)
    return field


_FIELDS: tuple[Callable[[np.random.Generator, int], np.ndarray], ...] = (
    _flat,
    _gradient,
    _vignette,
    _noise,
    _stripes,
    _checks,
    _discs,
)
