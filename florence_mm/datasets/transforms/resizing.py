"""Resizing and cropping of images, antialiased by torch, several times as fast as by Pillow."""

import math
from collections.abc import Sequence

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms import Resize as PlainResize

from florence_mm.datasets.arguments import require, require_flags
from florence_mm.errors import UsageError
from florence_mm.ops.resizing import INTERPOLATIONS, resize_image
from florence_mm.registry import TRANSFORMS
from florence_mm.utils.numbers import is_finite, is_whole

BACKENDS = ('torch', 'cv2', 'pillow')
#: image types that OpenCV resizes
_TYPES = ('uint8', 'uint16', 'int16', 'float32', 'float64')
#: what has places in the image
_PLACES = ('gt_bboxes', 'gt_masks', 'gt_keypoints')
_OF_OTHERS = {
    'cv2': ('nearest', 'bilinear', 'bicubic', 'area', 'lanczos'),
    'pillow': ('nearest', 'bilinear', 'bicubic', 'box', 'lanczos', 'hamming'),
}


def _require_backend(backend: str, interpolation: str) -> None:
    require('backend', backend, backend in BACKENDS, f'one of {", ".join(BACKENDS)}')
    known = INTERPOLATIONS if backend == 'torch' else _OF_OTHERS[backend]
    require('interpolation', interpolation, interpolation in known, f'one of {", ".join(known)} with backend={backend}')


def _resized(image: np.ndarray, size: tuple[int, int], interpolation: str, backend: str) -> np.ndarray:
    """The image at ``size``, height and width."""
    known = _TYPES if backend == 'cv2' else ('uint8',)
    if image.dtype.name not in known:
        other = '' if backend == 'cv2' or image.dtype.name not in _TYPES else "; take backend='cv2' for these"
        raise UsageError(f'backend={backend!r} resizes {", ".join(known)} images, not {image.dtype}{other}')
    if backend != 'torch':
        return mmcv.imresize(image, size[::-1], interpolation=interpolation, backend=backend)
    return resize_image(image, size, interpolation)


def _refuse_others(results: dict, step: str, keys: Sequence[str]) -> None:
    """Refuse a sample with something that a step would leave at the place and size of the image as it was."""
    for key in keys:
        value = results.get(key)
        if value is not None and not (step == 'Resize' and key != 'gt_masks' and isinstance(value, np.ndarray)):
            raise UsageError(
                f'florence_mm.{step} cannot change {key} ({type(value).__name__}) with the image; take mmdet.Resize or '
                'another step of mmdet'
            )


def _is_side(value: object) -> bool:
    return is_whole(value) and value > 0


def _is_range(value: object) -> bool:
    two = isinstance(value, Sequence) and len(value) == 2 and all(map(is_finite, value))
    return two and 0 < value[0] <= value[1]


@TRANSFORMS.register_module()
class Resize(PlainResize):
    """Resize an image, and boxes, key points and label maps with it, as :class:`mmcv.transforms.Resize` does.

    Boxes are arrays ``(n, 4)``; for the boxes and instance masks of mmdet's samples there is ``mmdet.Resize``.

    Args:
        scale, scale_factor, keep_ratio, clip_object_border: see :class:`mmcv.transforms.Resize`.
        interpolation (str): Filter: with 'torch' 'bilinear' or 'bicubic'.
        backend (str): 'torch' and 'pillow' antialias and agree to a level, or two where bicubic enlarges; 'cv2' does
            not antialias.

    Raises:
        ValueError: an argument is out of its range, or the backend lacks the interpolation.
        UsageError: a sample has masks or boxes of mmdet, which mmdet's step resizes, or another type of image.
    """

    def __init__(
        self,
        scale: int | tuple[int, int] | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        keep_ratio: bool = False,
        clip_object_border: bool = True,
        interpolation: str = 'bicubic',
        backend: str = 'torch',
    ) -> None:
        _require_backend(backend, interpolation)
        sides = scale if isinstance(scale, Sequence) else (scale, scale)
        good = len(sides) == 2 and all(map(_is_side, sides))
        require('scale', scale, scale is None or good, 'a number of pixels, or width and height')
        factors = scale_factor if isinstance(scale_factor, Sequence) else (scale_factor, scale_factor)
        good = len(factors) == 2 and all(is_finite(factor) and factor > 0 for factor in factors)
        require('scale_factor', scale_factor, scale_factor is None or good, 'a positive number, or two, of x and y')
        require('scale', scale, (scale, scale_factor) != (None, None), 'given, or else scale_factor')
        require_flags(keep_ratio=keep_ratio, clip_object_border=clip_object_border)
        if scale_factor is not None:
            scale_factor = tuple(map(float, factors))  # of which mmcv's class takes no whole numbers
        # the backend of mmcv's class is left for label maps, whose values are not mixed
        labels = 'cv2' if backend == 'torch' else backend
        super().__init__(scale, scale_factor, keep_ratio, clip_object_border, labels, interpolation)
        self.image_backend = backend

    def _resize_img(self, results: dict) -> None:
        image = results.get('img')
        if image is None:
            return
        _refuse_others(results, 'Resize', _PLACES)
        height, width = image.shape[:2]
        new = mmcv.rescale_size((width, height), results['scale']) if self.keep_ratio else tuple(results['scale'])
        new = max(1, new[0]), max(1, new[1])  # of a very long image the short side would round to 0
        results['img'] = _resized(image, new[::-1], self.interpolation, self.image_backend)
        results['img_shape'] = new[::-1]
        results['scale_factor'] = (new[0] / width, new[1] / height)
        results['keep_ratio'] = self.keep_ratio

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(scale={self.scale}, scale_factor={self.scale_factor}, '
            f'keep_ratio={self.keep_ratio}, clip_object_border={self.clip_object_border}, '
            f'interpolation={self.interpolation!r}, backend={self.image_backend!r})'
        )


@TRANSFORMS.register_module()
class ResizeEdge(BaseTransform):
    """Resize an image so that one edge has a given length, keeping its proportions.

    Adds ``scale`` ``(W, H)`` and ``scale_factor``, as ``mmpretrain.ResizeEdge`` does.

    Args:
        scale (int): Length of the edge in pixels.
        edge (str): 'short', 'long', 'width' or 'height'.
        interpolation, backend: see :class:`Resize`.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(self, scale: int, edge: str = 'short', interpolation: str = 'bicubic', backend: str = 'torch') -> None:
        require('scale', scale, _is_side(scale), 'a number of pixels, at least 1')
        require('edge', edge, edge in ('short', 'long', 'width', 'height'), 'short, long, width or height')
        _require_backend(backend, interpolation)
        self.scale = scale
        self.edge = edge
        self.interpolation = interpolation
        self.backend = backend

    def transform(self, results: dict) -> dict:
        """Resize ``img``."""
        _refuse_others(results, 'ResizeEdge', (*_PLACES, 'gt_seg_map'))
        height, width = results['img'].shape[:2]
        by_width = {'width': True, 'height': False, 'short': width < height, 'long': width > height}[self.edge]
        # rounded down, as in torchvision
        size = (
            (int(self.scale * height / width), self.scale)
            if by_width
            else (self.scale, int(self.scale * width / height))
        )
        size = (max(1, size[0]), max(1, size[1]))
        results['img'] = _resized(results['img'], size, self.interpolation, self.backend)
        results['img_shape'] = size
        results['scale'] = size[::-1]
        results['scale_factor'] = (size[1] / width, size[0] / height)
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(scale={self.scale}, edge={self.edge!r}, interpolation={self.interpolation!r}, '
            f'backend={self.backend!r})'
        )


@TRANSFORMS.register_module()
class ResizeWithin(BaseTransform):
    """Resize an image, nearly keeping its shape, to a given shorter edge and a longer one of at most another length.

    Follows ViLT's code: both edges are then rounded down to a multiple of the patches' side, so that all of an image is
    seen. Adds ``scale`` ``(W, H)`` and ``scale_factor``.

    Args:
        short (int): Length of the shorter edge in pixels; 384 in ViLT.
        long (int): Greatest length of the longer edge, for which the shorter one becomes shorter; 640 in ViLT.
        divisor (int): Side of a patch in pixels; 32 in ViLT.
        interpolation, backend: see :class:`Resize`.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        short: int = 384,
        long: int = 640,
        divisor: int = 32,
        interpolation: str = 'bicubic',
        backend: str = 'torch',
    ) -> None:
        for name, value in (('short', short), ('long', long), ('divisor', divisor)):
            require(name, value, _is_side(value), 'a number of pixels, at least 1')
        require('divisor', divisor, divisor <= short <= long, f'at most short={short}, and that at most long={long}')
        _require_backend(backend, interpolation)
        self.short, self.long, self.divisor = short, long, divisor
        self.interpolation, self.backend = interpolation, backend

    def transform(self, results: dict) -> dict:
        """Resize ``img``."""
        _refuse_others(results, 'ResizeWithin', (*_PLACES, 'gt_seg_map'))
        sides = results['img'].shape[:2]
        factor = min(self.short / min(sides), self.long / max(sides))
        size = tuple(max(int(side * factor + 0.5) // self.divisor, 1) * self.divisor for side in sides)
        results['img'] = _resized(results['img'], size, self.interpolation, self.backend)
        results['img_shape'] = size
        results['scale'] = size[::-1]
        results['scale_factor'] = (size[1] / sides[1], size[0] / sides[0])
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(short={self.short}, long={self.long}, divisor={self.divisor}, '
            f'interpolation={self.interpolation!r}, backend={self.backend!r})'
        )


@TRANSFORMS.register_module()
class RandomResizedCrop(BaseTransform):
    """Cut out a random part of an image, of random area and aspect ratio, and resize it.

    Follows torchvision's transform; the numbers drawn, from numpy's global generator, are those of
    ``mmpretrain.RandomResizedCrop``.

    Args:
        scale (int | Sequence[int]): Side, or height and width, of the result.
        crop_ratio_range (Sequence[float]): Smallest and largest area, as a fraction of the image's.
        aspect_ratio_range (Sequence[float]): Smallest and largest width / height.
        max_attempts (int): If so many random parts in turn do not fit into the image, the largest part in its
            middle whose aspect ratio is allowed is taken.
        interpolation, backend: see :class:`Resize`.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        scale: int | Sequence[int],
        crop_ratio_range: Sequence[float] = (0.08, 1.0),
        aspect_ratio_range: Sequence[float] = (3 / 4, 4 / 3),
        max_attempts: int = 10,
        interpolation: str = 'bicubic',
        backend: str = 'torch',
    ) -> None:
        size = scale if isinstance(scale, Sequence) else (scale, scale)
        require('scale', scale, len(size) == 2 and all(map(_is_side, size)), 'a number of pixels, or height and width')
        for name, value in (('crop_ratio_range', crop_ratio_range), ('aspect_ratio_range', aspect_ratio_range)):
            require(name, value, _is_range(value), 'two positive numbers, the smaller first')
        require('max_attempts', max_attempts, is_whole(max_attempts) and max_attempts >= 0, 'a whole number from 0')
        _require_backend(backend, interpolation)
        self.scale = tuple(size)
        self.crop_ratio_range = tuple(crop_ratio_range)
        self.aspect_ratio_range = tuple(aspect_ratio_range)
        self.max_attempts = max_attempts
        self.interpolation = interpolation
        self.backend = backend

    def draw(self, shape: tuple[int, int]) -> tuple[int, int, int, int]:
        """Draw a part of an image of ``shape`` (height and width): its top, left, height and width."""
        height, width = shape
        logs = tuple(map(math.log, self.aspect_ratio_range))
        for _ in range(self.max_attempts):
            area = np.random.uniform(*self.crop_ratio_range) * (height * width)
            ratio = math.exp(np.random.uniform(*logs))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top = np.random.randint(0, height - h + 1)
                return top, np.random.randint(0, width - w + 1), h, w
        low, high = self.aspect_ratio_range
        h, w = min(height, max(1, round(width / low))), min(width, max(1, round(height * high)))
        return (height - h) // 2, (width - w) // 2, h, w

    def transform(self, results: dict) -> dict:
        """Replace ``img``, or ``undecoded`` of ``LoadImage(scaled=True)``, by a part of it as ``img``."""
        _refuse_others(results, 'RandomResizedCrop', (*_PLACES, 'gt_seg_map'))
        target = results.get('gt_target')
        if results.get('prompt_region') is not None or target is not None and target.regions:
            raise UsageError(
                'florence_mm.RandomResizedCrop cannot change the places of a task with the image; take Resize, which '
                'leaves them as they are'
            )
        undecoded = results.pop('undecoded', None)
        if undecoded is None:
            image = results['img']
            top, left, height, width = self.draw(image.shape[:2])
            part = image[top : top + height, left : left + width]
        else:
            part = undecoded.decode_part(self.draw(undecoded.shape), self.scale)
        results['img'] = _resized(part, self.scale, self.interpolation, self.backend)
        results['img_shape'] = self.scale
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(scale={self.scale}, crop_ratio_range={self.crop_ratio_range}, '
            f'aspect_ratio_range={self.aspect_ratio_range}, max_attempts={self.max_attempts}, '
            f'interpolation={self.interpolation!r}, backend={self.backend!r})'
        )
