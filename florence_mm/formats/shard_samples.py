"""Samples of a shard: the members of a tar that share a key, and the text that one of them holds.

webdataset ends the key at the *first* dot of a file's name, so that ``img.v1.jpg`` and ``img.v2.jpg`` are one sample
there; here they are two. Not here: places in the tar without names (``shard_index``).
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from florence_mm.errors import DataError, shown_path
from florence_mm.utils.json_files import parse_json

from .captions import checked_caption
from .tar import Damage, Member

#: Extensions of a sample's image and of its text; the first that a sample has is used.
IMAGES = ('jpg', 'jpeg', 'png', 'webp', 'bmp', 'gif', 'tif', 'tiff', 'avif', 'ppm', 'jp2')
TEXTS = ('txt', 'caption', 'json', 'cls')
#: What stands before the extension of a second picture of the same sample, such as ``0001.seg.png``.
_ROLES = frozenset(
    ('seg', 'semseg', 'panoptic', 'instances', 'mask', 'depth', 'normals', 'edges', 'thumb', 'meta', 'metadata')
)


#: macOS puts ``._0001.jpg`` beside ``0001.jpg``, with what its file system knows of it; that is no picture.
_APPLE_DOUBLE = '._'


@dataclass
class RawSample:
    """The members of a tar that share a key.

    Attributes:
        key: name without the extension.
        members: by extension, in lower case and without its first dot.
        apart: whether another sample's members stand between them.
    """

    key: str
    members: dict[str, Member] = field(default_factory=dict)
    apart: bool = False

    def first(self, extensions: Iterable[str]) -> tuple[str, Member] | None:
        """The first of ``extensions`` that the sample has, and its member; None if it has none."""
        return next(((one, self.members[one]) for one in extensions if one in self.members), None)


def split_name(name: str) -> tuple[str, str]:
    """Split a member's name into key and extension: at its last dot, or before the role of a second picture.

    >>> split_name('a/img.v1.JPG'), split_name('0001.seg.png'), split_name('README')
    (('a/img.v1', 'jpg'), ('0001', 'seg.png'), ('README', ''))
    """
    folder, slash, base = name.rpartition('/')
    stem, dot, extension = base.rpartition('.')
    if not dot or not stem or base.startswith(_APPLE_DOUBLE):
        return name, ''
    rest, dot, role = stem.rpartition('.')
    if rest and role.lower() in _ROLES:
        stem, extension = rest, f'{role}.{extension}'
    return folder + slash + stem, extension.lower()


def group_samples(members: Iterable[Member | Damage]) -> list[RawSample]:
    """Group the members of a tar into samples, in the order of their first members.

    Members of a sample need not be neighbours. A second member of the same key and extension begins another sample of
    the same key, so that none is lost.

    Args:
        members: see :func:`~florence_mm.formats.tar.read_members`; damages are passed over.
    """
    samples: list[RawSample] = []
    latest: dict[str, RawSample] = {}
    last: RawSample | None = None
    for member in members:
        if isinstance(member, Damage):
            continue
        key, extension = split_name(member.name)
        sample = latest.get(key)
        if sample is None or extension in sample.members:
            sample = latest[key] = RawSample(key)
            samples.append(sample)
        elif sample is not last:
            sample.apart = True
        sample.members[extension] = member
        last = sample
    return samples


def read_range(file: str | Path | int, offset: int, size: int) -> bytes:
    """Read bytes of a file without moving its position, so that threads and forks can share it.

    Args:
        file: a path, or an open file's descriptor.
        offset: place of the first byte.
        size: number of bytes.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the file ends earlier.
    """
    if not isinstance(file, int):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            return _read_range(descriptor, offset, size, shown_path(file))
        finally:
            os.close(descriptor)
    return _read_range(file, offset, size, 'the file')


def _read_range(descriptor: int, offset: int, size: int, name: str) -> bytes:
    data = os.pread(descriptor, size, offset)
    while len(data) < size:  # the system gives at most 2 GiB at once
        more = os.pread(descriptor, size - len(data), offset + len(data))
        if not more:
            raise DataError(
                f'{name} ends at byte {offset + len(data)}, inside a member of {size} bytes at {offset}; copy it again'
            )
        data += more
    return data


def parse_text(extension: str, data: bytes, where: str) -> dict[str, Any]:
    """Read the member of a sample that holds its text.

    Args:
        extension: ``'txt'`` and ``'caption'`` are a caption, ``'cls'`` is a class's number; a ``'json'`` object has
            ``text`` (or img2dataset's ``caption``) or ``class``, and may have ``label_text`` or ``label`` (what the
            label is made of), ``augmented`` and further keys.
        data: the content.
        where: the sample in messages.

    Returns:
        what is given of ``text``, ``label``, ``class``, ``augmented`` and ``extra``.

    Raises:
        DataError: it is none of these.
    """
    try:
        if extension != 'json':
            text = data.decode('utf-8-sig')
            if extension != 'cls':
                return {'text': checked_caption(text.strip())}
            if not text.strip().isdecimal():
                raise ValueError(f'the class {text[:50]!r} is not a number')
            return {'class': int(text)}
        content = parse_json(data, 'its json')
        return _from_object(content)
    except UnicodeDecodeError as error:
        raise DataError(f'{where}: the {extension} is not UTF-8 (byte {data[error.start]:#04x})') from None
    except ValueError as error:
        raise DataError(f'{where}: {error}') from None


def is_augmented(data: bytes) -> bool:
    """Whether a json member says that its text is already inside a template."""
    if b'"augmented"' not in data:
        return False
    try:
        content = parse_json(data, 'its json')
    except DataError:
        return False
    return isinstance(content, dict) and content.get('augmented') is True


def _from_object(content: Any) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise ValueError('its json is not an object')
    extra = dict(content)
    text, caption, class_ = (extra.pop(key, None) for key in ('text', 'caption', 'class'))
    text = caption if text is None else text
    label, other = extra.pop('label_text', None), extra.pop('label', None)
    label = other if label is None else label
    augmented = extra.pop('augmented', False)
    if text is None and class_ is None:
        raise ValueError("its json has neither 'text' nor 'class'")
    if not isinstance(augmented, bool):
        raise ValueError(f"its 'augmented' must be true or false, but is {augmented!r}")
    if augmented and label is None:
        raise ValueError("it is 'augmented' without 'label_text'; the label is made of the text before the template")
    found = {
        'text': None if text is None else checked_caption(text),
        'label': None if label is None else checked_caption(label, 'label_text'),
        'class': class_,
        'extra': extra or None,
    }
    return {'augmented': augmented, **{key: value for key, value in found.items() if value is not None}}
