"""Region descriptions of Visual Genome as published (arXiv 1602.07332): ``region_descriptions.json``."""

import functools
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from florence_mm.errors import DataError, shown
from florence_mm.language.regions import Region
from florence_mm.utils.json_files import read_json
from florence_mm.utils.numbers import is_whole

from .annotated import AnnotatedPicture, PixelPlaces, read_each
from .captions import checked_caption


def read_region_descriptions(ann_file: str | Path, image_file: str | Path) -> Iterator[AnnotatedPicture | DataError]:
    """Yield the pictures with a described box each region.

    A picture is named by the last two parts of its ``url``, as in ``VG_100K/1.jpg``, which is how the archives unpack.
    Boxes that reach out of their picture are clipped; those wholly outside, of which the published file has some, are
    faults of their picture.

    Args:
        ann_file: ``region_descriptions.json``: for each picture its ``id`` and ``regions`` with ``x``, ``y``,
            ``width``, ``height`` and ``phrase``.
        image_file: ``image_data.json``: for each picture ``image_id``, ``url``, ``width`` and ``height``.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: a file is damaged or of another kind.
    """
    images = {}
    for number, image in enumerate(_entries(image_file)):
        if not is_whole(image.get('image_id')) or not isinstance(image.get('url'), str):
            raise DataError(f'{image_file}: entry {number} has no image_id and url; give image_data.json')
        images[image['image_id']] = image
    for number, entry in enumerate(_entries(ann_file)):
        id_, regions = entry.get('id'), entry.get('regions')
        if not is_whole(id_) or not isinstance(regions, list):
            raise DataError(f'{ann_file}: entry {number} has no id and regions; give region_descriptions.json')
        where = f'{ann_file}, picture {id_}'
        try:
            if id_ not in images:
                raise ValueError(f'{image_file} has no image_id {id_}; give the image_data.json beside it')
            places = PixelPlaces(images[id_].get('width'), images[id_].get('height'))
        except ValueError as error:
            yield DataError(f'{where}: {error}')
            continue
        found, faults = read_each(enumerate(regions), functools.partial(_region, places=places))
        name = '/'.join(PurePosixPath(images[id_]['url']).parts[-2:])
        yield AnnotatedPicture(name, where, found, clipped=places.clipped, faults=faults)


def _entries(path: str | Path) -> list[dict]:
    entries = read_json(path, kind=list, missing='correct `ann_file` and `image_file`')
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(f'{path}: entry {number} is {shown(entry)}; expected an object')
    return entries


def _region(numbered: tuple[int, Any], places: PixelPlaces) -> list[Region]:
    index, region = numbered
    keys = ('x', 'y', 'width', 'height', 'phrase')
    missing = keys if not isinstance(region, dict) else [key for key in keys if key not in region]
    if missing:
        raise ValueError(f'regions[{index}] has no {missing[0]!r}; expected {", ".join(keys)}')
    what = f'region {region.get("region_id", index)}'
    box = places.box([region[key] for key in keys[:4]], what)
    return [Region(checked_caption(region['phrase'], f'phrase of {what}'), boxes=(box,))]
