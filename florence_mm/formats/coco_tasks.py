"""Objects with outlines, captions and referring expressions of COCO-format files, as annotated pictures."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from florence_mm.errors import DataError, shown
from florence_mm.language.regions import Polygon, Region
from florence_mm.utils.json_files import read_json, require_list
from florence_mm.utils.numbers import is_whole
from florence_mm.utils.plain_pickle import UnpicklingRefused, load_plain
from florence_mm.utils.reading import read_bytes

from .annotated import AnnotatedPicture, PixelPlaces, read_each
from .captions import checked_caption
from .coco import is_ignored, read_coco_file
from .outlines import decode_run_lengths, mask_outlines

Pictures = Iterator[AnnotatedPicture | DataError]

# pixels: how far the outline of a mask that is stored as one may lie from its edge
_TOLERANCE = 0.5
_LARGEST_PICKLE = 2**29  # bytes; those of RefCOCO have up to 20 MB


def read_coco_objects(path: str | Path, outlines: bool = True) -> Pictures:
    """Yield every picture of a COCO-format file with the class, box and outline of its objects.

    Crowds and what is marked to be ignored are left out. An annotation without ``segmentation`` has no outline. Boxes
    and outlines that reach out of their picture are clipped; unusable annotations are its faults.

    Args:
        path: a file of instances.
        outlines: read ``segmentation``; False: whatever it is, it does not matter.

    Raises:
        FileNotFoundError, DataError: see :func:`.coco.read_coco_file`.
    """
    content = read_coco_file(path)
    names = {category['id']: category['name'] for category in content['categories']}
    items: dict[int, list[dict]] = {image['id']: [] for image in content['images']}
    for item in content['annotations']:
        if not is_ignored(item):
            items[item['image_id']].append(item)
    for image in content['images']:
        where = f'{path}, image {image["id"]}'
        try:
            places = PixelPlaces(image['width'], image['height'])
        except ValueError as error:
            yield DataError(f'{where}: {error}')
            continue
        read = functools.partial(_named_object, names=names, places=places, outlines=outlines)
        regions, faults = read_each(items.pop(image['id']), read)
        yield AnnotatedPicture(image['file_name'], where, regions, clipped=places.clipped, faults=faults)


def _named_object(
    item: Mapping[str, Any], names: Mapping[int, str], places: PixelPlaces, outlines: bool
) -> list[Region]:
    return [_object(item, names[item['category_id']], places, outlines)]


def _object(item: Mapping[str, Any], name: str, places: PixelPlaces, outlines: bool) -> Region:
    what = f'annotation {item["id"]}'
    outline = coco_outline(item.get('segmentation'), places, what) if outlines else ()
    return Region(name, boxes=(places.box(item['bbox'], what),), polygons=outline)


def coco_outline(segmentation: Any, places: PixelPlaces, what: str) -> tuple[Polygon, ...]:
    """Convert ``segmentation`` of an annotation, polygons or a mask in run lengths; empty if there is none.

    Raises:
        ValueError: it is neither; the message is only the reason, without file.
    """
    if not segmentation:
        return ()
    if isinstance(segmentation, Mapping):
        try:
            mask = decode_run_lengths(segmentation)
        except ValueError as error:
            raise ValueError(f'{what}: {error}') from None
        if mask.shape != (places.height, places.width):
            raise ValueError(
                f'{what} has a mask of {mask.shape[1]}x{mask.shape[0]} pixels, and its picture has '
                f'{places.width:g}x{places.height:g}; correct the one that is wrong'
            )
        if not mask.any():
            raise ValueError(f'{what} has an empty mask; correct or remove it')
        return tuple(places.polygon(part.ravel().tolist(), what) for part in mask_outlines(mask, _TOLERANCE))
    if not isinstance(segmentation, list):
        raise ValueError(f'{what} has segmentation {shown(segmentation)}; expected polygons or a mask')
    return tuple(places.polygon(part, what) for part in segmentation)


def read_coco_captions(path: str | Path) -> Pictures:
    """Yield every picture of a file of COCO captions with its captions; one without any is an error of the picture.

    Args:
        path: a file with ``images`` and ``annotations``, which have ``image_id`` and ``caption``.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is another kind of file, or a caption is of an image that is not in it.
    """
    path = Path(path)
    content = read_json(
        path, missing='make it (docs/data.md) or correct `ann_file` and `data_root`', what='annotation file'
    )
    expected = 'images and annotations as in the captions of COCO'
    texts: dict[int, list[Any]] = {}
    images = require_list(content, 'images', path, expected)
    for number, image in enumerate(images):
        if not isinstance(image, dict) or not is_whole(image.get('id')) or not isinstance(image.get('file_name'), str):
            raise DataError(f'{path}: images[{number}] has no id and file_name; expected those of its picture')
        if image['id'] in texts:
            raise DataError(f'{path}: the image id {image["id"]} occurs twice; give each image its own id')
        texts[image['id']] = []
    for number, item in enumerate(require_list(content, 'annotations', path, expected)):
        if not isinstance(item, dict) or 'caption' not in item or not is_whole(item.get('image_id')):
            raise DataError(f'{path}: annotations[{number}] has no image_id and caption; expected those of COCO')
        if item['image_id'] not in texts:
            raise DataError(
                f'{path}: annotations[{number}] has image_id {item["image_id"]}, which is none of the {len(texts)} in '
                'images; add it there or remove the annotation'
            )
        texts[item['image_id']].append(item['caption'])
    for image in images:
        where = f'{path}, image {image["id"]}'
        try:
            captions = tuple(checked_caption(text, 'caption') for text in texts[image['id']])
            if not captions:
                raise ValueError('no caption; add one or remove the image')
        except ValueError as error:
            yield DataError(f'{where}: {error}')
            continue
        yield AnnotatedPicture(image['file_name'], where, texts=captions)


def read_refcoco(ann_file: str | Path, ref_file: str | Path, split: str, outlines: bool = True) -> Pictures:
    """Yield the pictures of RefCOCO, RefCOCO+ or RefCOCOg as published, with a region and a phrase for every sentence.

    ``refs(unc).p`` and its like are pickles; nothing that one names is called, and one that names anything is refused
    (:mod:`florence_mm.utils.plain_pickle`). Beside them lies ``instances.json`` with the objects.

    Args:
        ann_file: ``instances.json``.
        ref_file: ``refs(unc).p``, ``refs(google).p``, ``refs(umd).p``, or the same list as JSON.
        split: ``'train'``, ``'val'``, ``'test'``, ``'testA'`` or ``'testB'``, whichever the file has.
        outlines: read the outlines of the objects.

    Raises:
        FileNotFoundError, DataError: a file is missing, damaged or of another kind, a reference is of an object that is
            not in the other file, or there is no such split.
    """
    refs = _read_refs(ref_file)
    splits = sorted({ref['split'] for ref in refs})
    if split not in splits:
        raise DataError(f'{ref_file} has no split {split!r}; it has {", ".join(splits)}; give one of these')
    content = read_coco_file(ann_file)
    images = {image['id']: image for image in content['images']}
    objects = {item['id']: item for item in content['annotations']}
    of_image: dict[int, list[dict]] = {}
    for ref in refs:
        if ref['split'] != split:
            continue
        item = objects.get(ref['ann_id'])
        if item is None or item['image_id'] != ref['image_id']:
            raise DataError(
                f'{ref_file}: the reference {ref["ref_id"]} is of annotation {ref["ann_id"]} of image '
                f'{ref["image_id"]}, which is not in {ann_file}; give the instances.json beside it'
            )
        of_image.setdefault(ref['image_id'], []).append(ref)
    for id_, found in of_image.items():
        image = images[id_]
        where = f'{ref_file}, image {id_}'
        try:
            places = PixelPlaces(image['width'], image['height'])
        except ValueError as error:
            yield DataError(f'{where}: {error}')
            continue
        read = functools.partial(_referred, objects=objects, places=places, outlines=outlines)
        regions, faults = read_each(found, read)
        phrases = tuple((region.text, (region,)) for region in regions)
        yield AnnotatedPicture(image['file_name'], where, regions, (), phrases, places.clipped, faults)


def _read_refs(path: str | Path) -> list[dict]:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there are no references {path}; correct `ref_file`')
    if path.suffix == '.json':
        refs = read_json(path, kind=list)
    else:
        data = read_bytes(path, what='file', limit=_LARGEST_PICKLE)
        try:
            refs = load_plain(data)
        except UnpicklingRefused as error:
            raise DataError(f'{path} is not a pickle of plain references ({error}); download it again') from None
    if not isinstance(refs, list) or not refs:
        raise DataError(f'{path} holds no list of references; give refs(unc).p or its like')
    for number, ref in enumerate(refs):
        keys = ('ref_id', 'ann_id', 'image_id', 'split', 'sentences')
        missing = keys if not isinstance(ref, dict) else [key for key in keys if key not in ref]
        if missing:
            raise DataError(
                f'{path}: reference number {number} (from 0) has no {missing[0]!r}; expected {", ".join(keys)}'
            )
        for key, right, what in (
            ('ann_id', is_whole(ref['ann_id']), 'a whole number'),
            ('image_id', is_whole(ref['image_id']), 'a whole number'),
            ('split', isinstance(ref['split'], str), 'the name of a split'),
        ):
            if not right:
                raise DataError(
                    f'{path}: reference number {number} (from 0) has {key} {shown(ref[key])}; expected {what}'
                )
    return refs


def _referred(
    ref: Mapping[str, Any], objects: Mapping[int, dict], places: PixelPlaces, outlines: bool
) -> Iterator[Region]:
    """The region of a reference, once for each of its sentences."""
    region = _object(objects[ref['ann_id']], '', places, outlines)
    sentences = ref['sentences']
    if not isinstance(sentences, list | tuple) or not sentences:
        raise ValueError(f'the reference {ref["ref_id"]} has no sentences; add one or remove the reference')
    for sentence in sentences:
        text = sentence.get('sent') if isinstance(sentence, Mapping) else None
        try:
            yield Region(checked_caption(text, 'sentence'), region.boxes, region.polygons)
        except ValueError as error:
            raise ValueError(f'the reference {ref["ref_id"]}: {error}') from None
