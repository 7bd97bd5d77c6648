"""Documents in which pictures and texts alternate: a jsonl file of them, or tars as webdataset has them.

A document is a JSON object of one of three forms:

- ``{"document": [{"image": "a.jpg"}, {"text": "a cat"}, ...]}``, ours;
- ``{"images": ["a.jpg", null, ...], "texts": [null, "a cat", ...]}``, OBELICS': of each place one is null;
- ``{"text_list": [...], "image_info": [{"image_name": "a.jpg", "matched_text_index": 0, ...}, ...]}``, MMC4's: a
  picture stands before the sentence that it matches; ``matched_sim`` may say how well.

In a tar the object is the member ``KEY.json``, and a picture is a member of the name that it gives, in the object's
folder or behind ``KEY.``; or for a name that no member has, such as a URL, ``KEY.N.jpg`` (or another extension) for the
N-th picture of the document, from 0.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from florence_mm.errors import DataError, shown, shown_path
from florence_mm.language.documents import DocumentPart
from florence_mm.utils.json_files import parse_json
from florence_mm.utils.numbers import is_finite

from .captions import checked_caption, checked_path
from .rows import read_jsonl
from .shard_samples import IMAGES, read_range
from .tar import Member, read_members


class Document(NamedTuple):
    """A document.

    Attributes:
        parts: texts, and None where a picture is, in order.
        images: of each picture its path, or ``(tar, offset, size)``.
        where: file and line, or tar and member, for messages.
    """

    parts: list[DocumentPart]
    images: list[str | tuple[str, int, int]]
    where: str


def parse_document(content: Any, least_similarity: float = 0.0) -> tuple[list[DocumentPart], list[str]]:
    """Parse the JSON object of a document.

    Args:
        content: the object, of one of the forms above.
        least_similarity: pictures of MMC4 with a lower ``matched_sim`` are left out.

    Returns:
        texts, and None where a picture is, in order; and the names of the pictures.

    Raises:
        ValueError: it has another form; the message is only the reason, without file or line.

    >>> parse_document({'images': ['a.jpg', None], 'texts': [None, 'a cat']})
    ([None, 'a cat'], ['a.jpg'])
    """
    forms = [key for key in ('document', 'texts', 'text_list') if isinstance(content, Mapping) and key in content]
    if len(forms) > 1:
        raise ValueError(f'the document has `{forms[0]}` and `{forms[1]}`, of two forms; give one')
    if isinstance(content, Mapping) and 'document' in content:
        items = [_one_of(item) for item in _list(content, 'document')]
    elif isinstance(content, Mapping) and 'texts' in content:
        images, texts = _list(content, 'images'), _list(content, 'texts')
        if len(images) != len(texts):
            raise ValueError(
                f'`images` has {len(images)} and `texts` {len(texts)} entries; they need as many, with null'
            )
        items = [_one_of({'image': i, 'text': t}) for i, t in zip(images, texts, strict=True) if (i, t) != (None, None)]
    elif isinstance(content, Mapping) and 'text_list' in content:
        items = list(_matched(content, least_similarity))
    else:
        raise ValueError(
            f'the document is {shown(content)}; give an object with `document`, with `images` and `texts`, or with '
            '`text_list` and `image_info`'
        )
    parts = [None if kind == 'image' else value for kind, value in items]
    return parts, [value for kind, value in items if kind == 'image']


def _one_of(item: Any) -> tuple[str, str]:
    """Kind and value of a part, which has a text or an image."""
    given = {k: v for k, v in item.items() if v is not None} if isinstance(item, Mapping) else {}
    if len(given) != 1 or not given.keys() <= {'text', 'image'}:
        raise ValueError(f'a part of the document is {shown(item)}; give each one of `text` and `image`')
    ((kind, value),) = given.items()
    return kind, checked_path(value) if kind == 'image' else checked_caption(value)


def _list(content: Mapping, key: str) -> list:
    value = content.get(key)
    if not isinstance(value, list):
        raise ValueError(f'`{key}` must be a list, but is {shown(value)}')
    return value


def _matched(content: Mapping, least_similarity: float) -> Iterator[tuple[str, str]]:
    """Parts of a document of MMC4: each picture before the sentence that it matches."""
    texts, before = _list(content, 'text_list'), {}
    for info in _list(content, 'image_info'):
        place = info.get('matched_text_index') if isinstance(info, Mapping) else None
        if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < len(texts):
            raise ValueError(
                f'a picture of `image_info` is {shown(info)}; it needs `image_name`, and `matched_text_index` from 0 '
                f'to {len(texts) - 1}'
            )
        similarity = info.get('matched_sim', 1.0)
        if not is_finite(similarity):  # a picture would be left out
            raise ValueError(f'`matched_sim` of a picture is {shown(similarity)}; give a number')
        if similarity >= least_similarity:
            before.setdefault(place, []).append(checked_path(info.get('image_name')))
    for place, text in enumerate(texts):
        yield from (('image', name) for name in before.get(place, ()))
        yield 'text', checked_caption(text)


def read_documents(path: str | Path, least_similarity: float = 0.0) -> Iterator[Document | DataError]:
    """Read the documents of a jsonl file or a tar; a document that cannot be read is an error in its place.

    Args:
        path: the file; paths of its pictures are as it has them.
        least_similarity: see :func:`parse_document`.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the file as a whole is unusable.
    """
    path = Path(path)
    if path.suffix == '.tar':
        yield from _read_tar(path, least_similarity)
        return
    if path.suffix != '.jsonl':
        raise DataError(f'{shown_path(path)} must end in .jsonl or .tar, which documents are read from')
    if not path.is_file():
        raise FileNotFoundError(f'there is no file {path} of documents; make it (docs/data.md) or correct `ann_file`')
    for line, row in read_jsonl(path):
        where = f'{path}, line {line}'
        if isinstance(row, DataError):
            yield row
            continue
        try:
            yield Document(*parse_document(row, least_similarity), where)
        except ValueError as error:
            yield DataError(f'{where}: {error}')


def _read_tar(path: Path, least_similarity: float) -> Iterator[Document | DataError]:
    members: dict[str, Member] = {}
    for member in read_members(path):
        if not isinstance(member, Member):
            yield DataError(f'{shown_path(path)}: {member.reason} at byte {member.offset}; copy or write it again')
        elif member.name in members:
            yield DataError(f'{shown_path(path)} has two members {member.name!r}; write it again with one of each name')
        else:
            members[member.name] = member
    for name, member in members.items():
        if not name.endswith('.json'):
            continue
        where = f'{path}, {name}'
        try:
            content = parse_json(read_range(path, member.offset, member.size), where)
            parts, images = parse_document(content, least_similarity)
            found = [_find(members, name.removesuffix('.json'), image, i) for i, image in enumerate(images)]
        except DataError as error:
            yield error
        except ValueError as error:
            yield DataError(f'{where}: {error}')
        else:
            yield Document(parts, [(str(path), one.offset, one.size) for one in found], where)


def _find(members: Mapping[str, Member], key: str, image: str, number: int) -> Member:
    """Find the member of a picture of the document ``key``."""
    folder = f'{key.rpartition("/")[0]}/' if '/' in key else ''
    names: Sequence[str] = (image, folder + image, f'{key}.{image}', *(f'{key}.{number}.{end}' for end in IMAGES))
    for name in names:
        if name in members:
            return members[name]
    raise ValueError(f'the tar has no picture {image!r}, and no {key}.{number}.jpg; put it in')
