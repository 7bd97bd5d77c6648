"""Loading images."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from florence_mm.datasets.arguments import require, require_backend, require_flags
from florence_mm.formats.image import decode_file, read_file
from florence_mm.formats.scaled_jpeg import undecoded_jpeg
from florence_mm.moved import moved_names
from florence_mm.registry import TRANSFORMS
from florence_mm.utils.numbers import is_finite

__getattr__ = moved_names(
    __name__, {'decode_image': 'florence_mm.formats.image', 'is_cut_off': 'florence_mm.formats.image'}
)


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read ``img_path``, or a file's content ``img_bytes``, into ``img``, ``(H, W, 3)`` uint8, **RGB**, upright.

    EXIF orientation is applied, grey images get three channels, 16-bit values are scaled to 8 bits, and transparent
    pixels show ``background``. ``img_shape`` and ``ori_shape`` are ``(H, W)``. A file with the same bytes as the last
    one is not decoded again, as several questions about one image follow each other (see :class:`PictureSampler`).

    Args:
        background (Sequence[int] | None): RGB behind transparent pixels. None ignores transparency, as PIL's
            ``convert('RGB')`` does.
        backend_args (dict | None): File backend, see :func:`mmengine.fileio.get`. None: local files and URLs, see
            :func:`florence_mm.utils.reading.read_bytes`.
        keep_mb (float): Cache up to this many megabytes of decoded images in memory, for small data sets; cached images
            are not read again in later epochs. Each loading process has its own cache, a worker for its lifetime
            (``persistent_workers=True``). A file that changes meanwhile is not noticed.
        scaled (bool): Read only the header of a JPEG file and leave its decoding to the
            :class:`~florence_mm.datasets.transforms.RandomResizedCrop` that must follow, which decodes at a half or
            a quarter of height and width where its part still has the pixels of the result. For training: the pixels
            are others than those of the whole image resized, the random numbers are the same. Other formats are
            decoded here.

    Raises:
        DataError: the file is missing, empty, truncated, no ordinary file, or not an image.
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        background: Sequence[int] | None = (255, 255, 255),
        backend_args: dict | None = None,
        keep_mb: float = 0.0,
        scaled: bool = False,
    ) -> None:
        colour = isinstance(background, Sequence) and len(background) == 3
        colour = colour and all(is_finite(value) and 0 <= value <= 255 for value in background)
        require(
            'background', background, background is None or colour, 'three numbers (R, G, B) from 0 to 255, or None'
        )
        require('keep_mb', keep_mb, is_finite(keep_mb) and keep_mb >= 0, 'a number from 0, which keeps no image')
        require_backend(backend_args)
        require_flags(scaled=scaled)
        require(
            'keep_mb', keep_mb, not (scaled and keep_mb), '0 with scaled=True, which decodes no whole image to keep'
        )
        self.background = None if background is None else np.array(background, dtype=np.float32)
        self.backend_args = backend_args
        self.keep_mb = keep_mb
        self.scaled = scaled
        self._forget()

    def _forget(self) -> None:
        self._last: tuple[bytes, np.ndarray] | None = None
        self._kept: dict[str, np.ndarray] = {}
        self._room = self.keep_mb * 2**20

    def transform(self, results: dict) -> dict:
        """Add ``img``, or if it is left undecoded ``undecoded``, ``img_shape`` and ``ori_shape`` to ``results``."""
        path = results['img_path']
        source = f'{results["source"]}: ' if 'source' in results else ''
        data = results.pop('img_bytes', None)  # of an image inside another file, such as a shard
        img = self._kept.get(path)
        if img is None:
            if data is None:
                data = read_file(path, self.backend_args, source)
            undecoded = undecoded_jpeg(data, path, source) if self.scaled else None
            if undecoded is not None:
                results['undecoded'] = undecoded
                results['img_shape'] = results['ori_shape'] = undecoded.shape
                return results
            img = self._decode(data, path, source)
            if img.nbytes <= self._room:
                self._kept[path] = img
                self._room -= img.nbytes
        results['img'] = img = img.copy()  # transforms may write into it
        results['img_shape'] = results['ori_shape'] = img.shape[:2]
        return results

    def _decode(self, data: bytes, path: str, source: str) -> np.ndarray:
        last = self._last
        if last is None or last[0] != data:
            last = self._last = data, decode_file(data, path, self.background, source)
        return last[1]

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key not in ('_last', '_kept', '_room')}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._forget()

    def __repr__(self) -> str:
        background = None if self.background is None else self.background.astype(int).tolist()
        return (
            f'{type(self).__name__}(background={background}, backend_args={self.backend_args}, '
            f'keep_mb={self.keep_mb}, scaled={self.scaled})'
        )
