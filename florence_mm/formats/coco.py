"""Reading and checking COCO-format annotation files."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from florence_mm.errors import DataError
from florence_mm.language.labels import is_blank
from florence_mm.utils.json_files import read_json, require_list
from florence_mm.utils.numbers import is_finite
from florence_mm.utils.text_files import is_encodable

IMAGE_KEYS = ('id', 'file_name', 'width', 'height')
ANNOTATION_KEYS = ('id', 'image_id', 'category_id', 'bbox')
CATEGORY_KEYS = ('id', 'name')
#: square pixels; the protocol of COCO ignores larger objects
LARGEST_AREA = 1e5**2


def read_coco_file(path: str | Path) -> dict:
    """Read a COCO-format file and check that ids are unique, references exist and boxes are four numbers in pixels.

    Whether boxes lie inside their image is not checked (see :func:`clip_box`).

    Args:
        path (str | Path): The JSON file.

    Returns:
        dict: Content of the file.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the file is not JSON of this format, an id occurs twice, a key is missing, or an annotation names an
            image or category that is not in the file.
    """
    path = Path(path)
    content = parse_coco_file(path)
    images, categories = check_images_and_categories(path, content)
    _unique(path, 'annotation', content['annotations'], ANNOTATION_KEYS)
    for item in content['annotations']:
        for key, known in (('image_id', images), ('category_id', categories)):
            if type(item[key]) is not int or item[key] not in known:
                raise DataError(
                    f'{path}: annotation {item["id"]} has {key} {item[key]!r}, which is none of the {len(known)} in '
                    f'{"images" if known is images else "categories"}; add it there or remove the annotation'
                )
        problem = annotation_problem(item)
        if problem is not None:
            raise DataError(f'{path}: annotation {item["id"]} has {problem}')
    fractions = FractionCheck()
    for item in content['annotations']:
        fractions.add(item['bbox'])
    fractions.finish(path)
    return content


def annotation_problem(item: Mapping) -> str | None:
    """Say what is wrong with the box, area or flags of an annotation, as in 'bbox ...; expected ...'; None: nothing."""
    box = item['bbox']
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
        return f'bbox {box!r}; expected four finite numbers x, y, width, height'
    area = item.get('area')
    # boxes without area are counted, whatever their entry says
    if area is not None and not (is_finite(area) and (0 <= area <= LARGEST_AREA or min(box[2:]) <= 0)):
        return f'area {area!r}; expected square pixels up to 1e10, or none to take that of the box'
    for key in ('iscrowd', 'ignore'):
        flag = item.get(key)
        if flag is not None and (not isinstance(flag, (int, float)) or flag not in (0, 1)):
            return f'{key} {flag!r}; expected 0 or 1'
    return None


def is_ignored(item: Mapping) -> bool:
    """Whether an annotation is a region to ignore and no object: a crowd, or marked ``ignore``.

    ``ignore`` is how converters write what Pascal VOC calls difficult and what CrowdHuman and VisDrone leave out of
    their evaluation.
    """
    return bool(item.get('iscrowd') or item.get('ignore'))


class FractionCheck:
    """Refuse a file whose boxes are all fractions of their image's size, as other formats have them."""

    def __init__(self) -> None:
        self.pixels = self._between = False

    def add(self, box: Sequence[float]) -> None:
        """Look at ``x, y, width, height`` of a box."""
        self.pixels = self.pixels or not all(0 <= value <= 1 for value in box)
        self._between = self._between or any(0 < value < 1 for value in box)

    def finish(self, path: str | Path) -> None:
        """Raise a :class:`DataError` with the file's name if no number was outside 0 to 1 and one lay between."""
        if self._between and not self.pixels:
            raise DataError(
                f'{path}: all boxes lie between 0 and 1; expected pixels: multiply by the size of the image'
            )


def parse_coco_file(path: Path, object_hook: Callable[[dict], Any] | None = None) -> dict:
    """Parse a JSON object with the lists images, annotations and categories, without checking their entries.

    Args:
        path (Path): The JSON file.
        object_hook (Callable | None): Replaces each object while parsing, see :func:`json.loads`.

    Raises:
        FileNotFoundError, DataError: see :func:`read_coco_file`.
    """
    advice = 'make it (docs/data.md) or correct `ann_file` and `data_root`'
    content = read_json(path, missing=advice, object_hook=object_hook, what='annotation file')
    for part in ('images', 'annotations', 'categories'):
        require_list(content, part, path, 'images, annotations and categories as in COCO')
    return content


def check_images_and_categories(path: Path, content: dict) -> tuple[set[int], set[int]]:
    """Check images and categories and return the ids of both; adds ``file_name`` to images of LVIS.

    Raises:
        DataError: see :func:`read_coco_file`.
    """
    for index, image in enumerate(content['images']):
        if isinstance(image, dict) and 'file_name' not in image and 'coco_url' in image:  # LVIS
            image['file_name'] = image_file_name(image, f'{path}: images[{index}]')
    images = _unique(path, 'image', content['images'], IMAGE_KEYS)
    categories = _unique(path, 'category', content['categories'], CATEGORY_KEYS)
    names: dict[str, Any] = {}
    for category in content['categories']:
        require_name(category['name'], f'{path}: category {category["id"]}', 'name')
        if names.setdefault(category['name'], category['id']) != category['id']:
            raise DataError(
                f'{path}: the categories {names[category["name"]]} and {category["id"]} are both called '
                f'{category["name"]!r}; give each its own name'
            )
    for image in content['images']:
        require_name(image['file_name'], f'{path}: image {image["id"]}', 'file_name')
        if not all(is_finite(image[key]) and image[key] > 0 for key in ('width', 'height')):
            raise DataError(
                f'{path}: image {image["id"]} has width {image["width"]!r} and height {image["height"]!r}; '
                'expected its size in pixels'
            )
    return images, categories


def require_name(name: Any, where: str, key: str) -> str:
    """Return a name after checking that it is text with something to read, and can be written as UTF-8.

    Raises:
        DataError: it is not; the message starts with ``where`` and names ``key``.
    """
    if not isinstance(name, str) or '\0' in name or (is_blank(name) and '.' not in name):
        raise DataError(f'{where} has {key} {name!r}; expected a name')
    if not is_encodable(name):
        raise DataError(f'{where} has {key} {name!r}, which is no Unicode text; give it another name')
    return name


def _unique(path: Path, kind: str, items: Iterable[Any], keys: tuple[str, ...]) -> set:
    """Return the ids of ``items``; raise if one lacks a key of ``keys`` or repeats an id."""
    ids = set()
    for number, item in enumerate(items):
        missing = keys if not isinstance(item, Mapping) else [key for key in keys if key not in item]
        if missing:
            raise DataError(
                f'{path}: {kind} number {number} (from 0) has no {missing[0]!r}; expected {", ".join(keys)}'
            )
        if type(item['id']) is not int:
            raise DataError(f'{path}: {kind} number {number} (from 0) has id {item["id"]!r}; expected a whole number')
        if item['id'] in ids:
            raise DataError(f'{path}: the {kind} id {item["id"]} occurs twice; give each {kind} its own id')
        ids.add(item['id'])
    return ids


def clip_box(box: list[float], width: float, height: float) -> tuple[tuple[float, float, float, float], str | None]:
    """Convert a box to corners and clip it to its image; also say what was wrong with it.

    Args:
        box (list[float]): ``x, y, width, height`` in pixels.
        width (float): Width of the image.
        height (float): Height of the image.

    Returns:
        tuple: ``x1, y1, x2, y2``; and None if the box lies inside, ``'clipped'`` if it reaches out, ``'outside'`` if it
        lies wholly outside, or ``'no area'`` if its width or height is 0 or less.
    """
    corners = (box[0], box[1], box[0] + box[2], box[1] + box[3])
    inside = (max(corners[0], 0), max(corners[1], 0), min(corners[2], width), min(corners[3], height))
    if box[2] <= 0 or box[3] <= 0:
        return corners, 'no area'
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        return corners, 'outside'
    # sizes and positions are rounded independently, so up to 0.01 pixel outside is not counted
    overhang = max(inside[0] - corners[0], inside[1] - corners[1], corners[2] - inside[2], corners[3] - inside[3])
    return inside, 'clipped' if overhang > 0.01 else None


def image_file_name(item: Mapping, where: str) -> str:
    """Return ``file_name``, or the last two parts of ``coco_url``, which LVIS has instead.

    Args:
        item: entry of an image.
        where: file and entry, for messages.

    Raises:
        DataError: both are missing.
    """
    if isinstance(item.get('file_name'), str) and item['file_name']:
        return item['file_name']
    if isinstance(item.get('coco_url'), str):
        return '/'.join(PurePosixPath(item['coco_url']).parts[-2:])
    raise DataError(f'{where}: `file_name` is missing; expected it, or `coco_url`')
