"""Reading of region features, in place of pixels or beside them."""

import os

import numpy as np
from mmcv.transforms import BaseTransform

from florence_mm.datasets.arguments import require, require_flags, require_paths
from florence_mm.errors import DataError
from florence_mm.formats.regions import RegionFiles
from florence_mm.registry import TRANSFORMS
from florence_mm.utils.numbers import is_whole


@TRANSFORMS.register_module()
class LoadRegions(BaseTransform):
    """Read the regions of ``img_path`` into ``regions`` ``(R, F + 7)`` float32 and ``region_classes`` ``(R, 1 + K)``.

    ``regions`` are features and seven numbers of position: left, top, right, bottom, width, height and area, as
    fractions of the image. A region file names images as they are under its folder of images, see
    :mod:`florence_mm.formats.regions`.

    Args:
        folder (str): Folder of the region files.
        images (str): Folder that the names of images start from; empty: they are file names alone.
        max_regions (int): Most regions of an image, the first ones, which are those of the highest scores; 100 in
            UNITER.
        positions (bool): False sets the seven numbers to 0, a control experiment: a model then does not know where
            regions are.

    Raises:
        DataError: there are no region files, or none of the image, or the image is no file.
    """

    def __init__(self, folder: str, images: str = '', max_regions: int = 100, positions: bool = True) -> None:
        require_paths(folder=folder, images=images)
        require('max_regions', max_regions, is_whole(max_regions) and max_regions > 0, 'a whole number above 0')
        require_flags(positions=positions)
        self.folder, self.images, self.max_regions, self.positions = folder, images, max_regions, positions
        self._files: RegionFiles | None = None

    def transform(self, results: dict) -> dict:
        """Add ``regions``, ``region_classes``, ``img_shape`` and ``ori_shape`` to ``results``."""
        if self._files is None:
            self._files = RegionFiles(self.folder)
        path = results.get('img_path')
        if path is None:
            raise DataError(
                f'LoadRegions finds the regions in {self.folder} by the name of the picture, and this one is no file; '
                'test on region files instead'
            )
        name = os.path.relpath(path, self.images) if self.images else os.path.basename(path)  # noqa: PTH119
        regions = self._files.read(name)
        positions = regions.positions() if self.positions else np.zeros((len(regions.boxes), 7), np.float32)
        results['regions'] = np.concatenate([regions.features, positions], 1)[: self.max_regions]
        results['region_classes'] = regions.probabilities[: self.max_regions]
        results['img_shape'] = results['ori_shape'] = regions.size[::-1]
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(folder={self.folder!r}, images={self.images!r}, max_regions={self.max_regions}, '
            f'positions={self.positions})'
        )
