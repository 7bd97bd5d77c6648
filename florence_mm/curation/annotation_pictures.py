"""The pictures that are annotated, and what is known of them already, in parts on disk."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from florence_mm.errors import DataError, UsageError, shown_path
from florence_mm.formats.rows import read_rows
from florence_mm.formats.tasks import parse_task_row
from florence_mm.utils.files import replacing, write_atomic
from florence_mm.utils.reading import read_bytes
from florence_mm.utils.text_files import is_encodable

from . import annotation_reasons as reasons
from .annotation_items import Item, checked, item_line, items_of, parse_item
from .inputs import RawShard, find_shards
from .options import InputOptions, require
from .pairs import Pair, read_pairs
from .pictures import extension_of
from .state import read_record, sampled_digest, write_record

#: What pictures are named by: task files, and what curation reads.
KINDS = ('tasks', 'manifest', 'folder', 'tars')
#: Pictures after which the state is written, so that a run that is stopped loses no more.
PART = 256
#: Folder of the pictures of tars, which task files cannot name there.
PICTURES = 'pictures'


@dataclass(frozen=True)
class PictureOptions:
    """Where the pictures are.

    Attributes:
        path: a task file, a manifest, a folder, a tar or folder of tars; of files also a pattern such as
            ``tasks/train_*.jsonl``.
        kind: ``'tasks'``, ``'manifest'``, ``'folder'`` or ``'tars'``.
        prefix: folder of relative paths in task files and manifests; None: the folder of the file.
    """

    path: str
    kind: str = 'tasks'
    prefix: str | None = None

    def __post_init__(self) -> None:
        require('pictures.kind', self.kind, self.kind in KINDS, f'one of {", ".join(KINDS)}')
        require('pictures.path', self.path, isinstance(self.path, str) and bool(self.path), 'a file or folder')
        prefix = self.prefix
        require('pictures.prefix', prefix, prefix is None or isinstance(prefix, str), 'a folder, or None')

    def files(self) -> list[Path]:
        """The task files, sorted.

        Raises:
            UsageError: there is none.
        """
        path = Path(self.path).expanduser()
        found = [path] if path.is_file() else sorted(Path(path.anchor or '.').glob(str(path.relative_to(path.anchor))))
        found = [one for one in found if one.is_file()]
        if not found:
            raise UsageError(f'pictures: there is no task file {shown_path(self.path)}; correct pictures.path')
        return found

    def root(self, out: Path) -> Path:
        """The folder that pictures in the task files of a run are relative to.

        Args:
            out: folder that the run writes to.
        """
        if self.kind == 'tars':
            return out / PICTURES
        if self.prefix is not None:
            return Path(self.prefix).expanduser().resolve()
        path = Path(self.path).expanduser().resolve()
        return path if self.kind == 'folder' else path.parent


@dataclass
class Picture:
    """A picture and its annotations.

    Attributes:
        image: its path from the root.
        items: its annotations.
        drop: reason for which nobody can look at it; None if it can be read.
        size: width and height in pixels, once somebody has looked at it.
    """

    image: str
    items: list[Item] = field(default_factory=list)
    drop: str | None = None
    size: tuple[int, int] | None = None

    def line(self) -> str:
        """A line of JSON."""
        content: dict[str, Any] = {'image': self.image, 'items': [item_line(item) for item in self.items]}
        content |= {name: value for name, value in (('drop', self.drop), ('size', self.size)) if value}
        return json.dumps(content, ensure_ascii=False) + '\n'


def write_part(path: Path, pictures: Iterable[Picture]) -> None:
    """Write a part of the pictures."""
    write_atomic(path, ''.join(picture.line() for picture in pictures))


def read_part(path: Path) -> list[Picture]:
    """Read a part that :func:`write_part` wrote."""
    lines = (json.loads(line) for line in path.read_text(encoding='utf-8').splitlines())
    return [
        Picture(line['image'], list(map(parse_item, line['items'])), line.get('drop'), line.get('size'))
        for line in lines
    ]


def list_pictures(options: PictureOptions, work: Path, out: Path) -> list[Path]:
    """List the pictures in parts, with their annotations, unless that is done.

    Args:
        options: see :class:`PictureOptions`.
        work: folder of the state.
        out: folder of the run, for the pictures of tars.

    Returns:
        the parts.

    Raises:
        UsageError: there are none.
        DataError: a file cannot be read as a whole, or a line of a task file is wrong.
    """
    folder = work / 'pictures'
    shards: list[RawShard] = []
    if options.kind == 'tasks':
        digests: Any = [[str(path), sampled_digest(path)] for path in options.files()]
    else:
        shards = find_shards((InputOptions(options.kind, options.path, prefix=options.prefix),), work / 'lists', (out,))
        digests = [shard.digest() for shard in shards]
    made_of = {'stage': 'pictures', 'kind': options.kind, 'root': str(options.root(out)), 'of': digests, 'part': PART}
    record = folder / 'pictures.json'
    found = read_record(record, made_of)
    if found is None:
        record.unlink(missing_ok=True)
        pictures = _of_tasks(options) if options.kind == 'tasks' else _of_shards(shards, options, out)
        parts, written = iter(pictures), []
        while part := list(islice(parts, PART)):
            written.append(folder / f'{len(written):05}.jsonl')
            write_part(written[-1], part)
        if not written:
            raise UsageError(f'pictures: there is nothing in {shown_path(options.path)}; correct pictures.path or kind')
        found = write_record(record, made_of, written, {})
    return [folder / name for name in sorted(found['files'])]


def _of_tasks(options: PictureOptions) -> list[Picture]:
    """Pictures of task files in the order in which they are first named, each with all its annotations."""
    pictures: dict[str, Picture] = {}
    for file in options.files():
        for line, raw in read_rows(file):
            if isinstance(raw, DataError):
                raise raw
            try:
                row = parse_task_row(raw)
            except ValueError as error:
                raise DataError(f'{shown_path(file)}, line {line}: {error}') from None
            pictures.setdefault(row.image, Picture(row.image)).items.extend(map(checked, items_of(row)))
    return list(pictures.values())


def _of_shards(shards: Iterable[RawShard], options: PictureOptions, out: Path) -> Iterator[Picture]:
    """Pictures of curation's sources; given texts are captions."""
    root = options.root(out)
    for shard in shards:
        numbered = enumerate(read_pairs(shard))
        for _, group in groupby(numbered, lambda entry: (entry[1].path, None if entry[1].path else entry[0])):
            pairs = list(group)
            number, first = pairs[0]
            image = _write_picture(first, number, shard, root) if options.kind == 'tars' else _name(first, root)
            items = [checked(Item('caption', pair.text)) for _, pair in pairs if pair.text]
            drop = None
            if image is None or first.image is None:
                image = image or f'{shown_path(shard.path)}/{first.key}'
                drop = first.drop if first.drop in reasons.REASONS else reasons.NO_IMAGE
            yield Picture(image, items, drop)


def _name(pair: Pair, root: Path) -> str | None:
    if pair.path is None or not is_encodable(pair.path):
        return None
    path = Path(pair.path)
    inside = path.is_absolute() and path.resolve().is_relative_to(root)
    return path.resolve().relative_to(root).as_posix() if inside else pair.path


def _write_picture(pair: Pair, number: int, shard: RawShard, root: Path) -> str | None:
    """Write a picture of a tar to a file of its own, which has the same bytes whenever it is written."""
    if pair.image is None:
        return None
    name = f'{shard.number:05}/{number:06}.{extension_of(pair.image)}'
    path = root / name
    if not path.is_file() or path.read_bytes() != pair.image:  # another tar may have been there
        with replacing(path, durable=False) as temporary:
            temporary.write_bytes(pair.image)
    return name


def read_picture_file(root: Path, image: str) -> bytes | None:
    """Read the file of a picture; None if it is not there.

    Args:
        root: see :meth:`PictureOptions.root`.
        image: its path from there.
    """
    try:
        return read_bytes(image if '://' in image else str(root / image))
    except (OSError, DataError):
        return None
