"""The plan of a merge, from a YAML or JSON file: sources, synonyms of class names, images to exclude."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from florence_mm.errors import DataError
from florence_mm.formats.coco import require_name
from florence_mm.utils.text_files import read_text

FORMATS = ('coco', 'lvis', 'openimages')
_FORMAT_KEYS = {'openimages': ('class_descriptions', 'image_labels', 'image_sizes', 'image_root')}


@dataclass(frozen=True)
class SourceSpec:
    """A source data set of a merge.

    Attributes:
        name: Its name in the merged file.
        format: ``'coco'`` (COCO, Objects365, the output of ``pseudo_boxes.py``), ``'lvis'`` or ``'openimages'``.
        ann_file: The JSON file, or Open Images' CSV of boxes.
        prefix: Put before the file names of its images.
        images: Name of its image collection. Sources with the same collection share pictures, which are matched by file
            name without folder and extension. By default ``'coco'`` for LVIS, else the name of the source.
        class_descriptions: Open Images: the CSV of class codes and names.
        image_labels: Open Images: the CSV of human-verified image-level labels, optional; without it only classes with
            boxes are annotated in an image.
        image_sizes: Open Images: a CSV with the columns ``ImageID,Width,Height``, as boxes are fractions of the size.
        image_root: Open Images, instead of ``image_sizes``: the folder of the images, whose headers are read.
    """

    name: str
    format: str
    ann_file: str
    prefix: str = ''
    images: str = ''
    class_descriptions: str = ''
    image_labels: str = ''
    image_sizes: str = ''
    image_root: str = ''

    def files(self) -> list[str]:
        """The files that are read."""
        files = (self.ann_file, self.class_descriptions, self.image_labels, self.image_sizes)
        return [file for file in files if file]


@dataclass(frozen=True)
class MergePlan:
    """Input of :func:`~florence_mm.preparation.merging.merge_detection`.

    Attributes:
        sources: In order of priority: of two boxes of one object that of the earlier source is kept.
        synonyms: Class name in the merged file -> its other names; ``source:name`` restricts a name to one source.
        exclude: ``dict(images=collection, ann_file=file)``: the pictures of these COCO-format files are left out, such
            as those of an evaluation set.
    """

    sources: tuple[SourceSpec, ...]
    synonyms: Mapping[str, list[str]] = field(default_factory=dict)
    exclude: tuple[Mapping[str, str], ...] = ()


def read_plan(path: str | Path, taxonomy: str | Path | None = None) -> MergePlan:
    """Read the plan from a YAML or JSON file with the keys ``sources``, ``synonyms`` and ``exclude``.

    Args:
        path: The file.
        taxonomy: Another file with synonyms, which replace those of the plan.

    Raises:
        FileNotFoundError: a file is missing.
        DataError: a key is unknown, missing or of the wrong type.
    """
    content = _load(path)
    _no_unknown(content, ('sources', 'synonyms', 'exclude'), str(path))
    synonyms = _load(taxonomy) if taxonomy is not None else content.get('synonyms') or {}
    return make_plan(content.get('sources'), synonyms, content.get('exclude') or (), str(path))


def make_plan(sources: Any, synonyms: Any = (), exclude: Any = (), where: str = 'the plan') -> MergePlan:
    """Check the parts of a plan and make it; arguments are those of :class:`MergePlan` as lists and dicts.

    Raises:
        DataError: see :func:`read_plan`.
    """
    if not isinstance(sources, (list, tuple)) or not sources:
        raise DataError(f'{where}: `sources` must be a list with at least one source')
    specs = tuple(_source(source, f'{where}: sources[{index}]') for index, source in enumerate(sources))
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise DataError(f'{where}: two sources are called {next(n for n in names if names.count(n) > 1)!r}')
    synonyms = synonyms or {}
    if not isinstance(synonyms, Mapping):
        raise DataError(f'{where}: `synonyms` must map a class name to a list of its other names')
    for name, others in synonyms.items():
        if not isinstance(name, str) or not isinstance(others, list) or not all(isinstance(o, str) for o in others):
            raise DataError(f'{where}: the synonyms of {name!r} are {others!r}; expected a list of names')
    collections = {spec.images for spec in specs}
    if not isinstance(exclude, (list, tuple)):
        raise DataError(f'{where}: `exclude` is {exclude!r}; expected a list of objects with `images` and `ann_file`')
    for index, entry in enumerate(exclude):
        place = f'{where}: exclude[{index}]'
        keys = set(entry) if isinstance(entry, Mapping) else ()
        if keys != {'images', 'ann_file'} or not all(isinstance(value, str) for value in entry.values()):
            raise DataError(f'{place} is {entry!r}; expected the keys `images` and `ann_file` and a string for each')
        if entry['images'] not in collections:
            raise DataError(f'{place}: no source is from {entry["images"]!r}; there are {sorted(collections)}')
    return MergePlan(specs, synonyms, tuple(exclude))


def _source(source: Any, where: str) -> SourceSpec:
    if not isinstance(source, Mapping):
        raise DataError(f'{where} is {source!r}; expected name, format and ann_file')
    _no_unknown(source, [f.name for f in fields(SourceSpec)], where)
    for key, value in source.items():
        if not isinstance(value, str):
            raise DataError(f'{where}: `{key}` is {value!r}; expected a string')
        if value:
            require_name(value, where, key)
    for key in ('name', 'format', 'ann_file'):
        if not source.get(key):
            raise DataError(f'{where}: `{key}` is missing')
    if set(source['name']) & set('+:'):
        raise DataError(f'{where}: the name {source["name"]!r} has + or :, which join names in the merged file')
    spec = SourceSpec(**{'images': 'coco' if source['format'] == 'lvis' else source['name'], **source})
    if spec.format not in FORMATS:
        raise DataError(f'{where}: format {spec.format!r} is none of {", ".join(FORMATS)}')
    for format_, keys in _FORMAT_KEYS.items():
        given = [key for key in keys if source.get(key)]
        if given and spec.format != format_:
            raise DataError(f'{where}: `{given[0]}` belongs to the format {format_}, but the format is {spec.format}')
    if spec.format == 'openimages':
        if not spec.class_descriptions:
            raise DataError(f'{where}: `class_descriptions` is missing, the CSV of class codes and names')
        if bool(spec.image_sizes) == bool(spec.image_root):
            raise DataError(f'{where}: give `image_sizes` (ImageID,Width,Height) or `image_root`, one of them')
    return spec


def _no_unknown(given: Mapping, known: Any, where: str) -> None:
    unknown = [key for key in given if key not in known]
    if unknown:
        raise DataError(f'{where}: unknown key {unknown[0]!r}; the keys are {", ".join(known)}')


class _UniqueKeys(yaml.SafeLoader):
    """Refuse a key twice in one object, of which YAML would keep the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Construct the dict of a node, see the class."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            problem = f'the key {twice!r} occurs twice'
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _load(path: str | Path) -> dict:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there is no file {path}; write the plan or correct the path')
    try:
        content = yaml.load(read_text(path, 'the keys of a plan, as YAML or JSON'), _UniqueKeys)
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f'{path} is neither YAML nor JSON ({" ".join(str(error).split())})') from None
    if not isinstance(content, dict):
        raise DataError(f'{path} must hold an object with keys, but holds {type(content).__name__}')
    return content
