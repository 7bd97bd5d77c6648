"""The Karpathy splits of COCO, Flickr30k and Flickr8k as manifests (arXiv 1412.2306, section 4)."""

import json
import posixpath
from pathlib import Path

from florence_mm.errors import DataError, shown
from florence_mm.formats.captions import checked_caption, checked_path
from florence_mm.language.labels import is_blank
from florence_mm.utils.files import refuse_overwriting, write_atomic
from florence_mm.utils.json_files import read_json, require_list
from florence_mm.utils.numbers import is_whole
from florence_mm.utils.progress import ProgressLog

SPLITS = ('train', 'val', 'test')
# images of COCO's validation set that are in none of the three splits; used for training
REST = 'restval'


def read_karpathy(path: str | Path, images: str | Path | None = None, with_rest: bool = True) -> dict[str, list[dict]]:
    """Read ``dataset_coco.json``, ``dataset_flickr30k.json`` or ``dataset_flickr8k.json`` as manifest rows per split.

    A row has ``image`` (``filepath`` and ``filename`` of the entry), ``texts`` (all captions as written), and
    ``image_id``: COCO's id, or the entry's.

    Args:
        path (str | Path): The file as published.
        images (str | Path | None): Folder of the images, to check that each exists. None: no check.
        with_rest (bool): Add the 30,504 images of COCO marked 'restval' to the training split, as is usual.

    Returns:
        dict[str, list[dict]]: 'train', 'val' and 'test', in the order of the file.

    Raises:
        FileNotFoundError: there is no such file, or images are missing.
        DataError: the file has another format, an entry lacks a key or captions, or two entries are of the same image.
    """
    path = Path(path)
    content = read_json(path, missing='give the dataset_*.json of the Karpathy splits')
    entries = require_list(content, 'images', path, 'a dataset_*.json of the Karpathy splits')
    splits: dict[str, list[dict]] = {split: [] for split in SPLITS}
    seen: set[str] = set()
    progress = ProgressLog(f'reading {path}', len(entries))
    for number, entry in enumerate(entries):
        progress.update(number)
        where = f'{path}: images[{number}]'
        row = _row(entry, where)
        image = posixpath.normpath(row['image'])
        if image in seen:
            raise DataError(f'{where} is of {row["image"]}, as an entry before it; keep one of them')
        seen.add(image)
        split = entry.get('split')
        if split == REST:
            if not with_rest:
                continue
            split = 'train'
        if split not in SPLITS:  # not `splits`: a list cannot be looked up there
            raise DataError(f'{where} has the split {shown(split)}; expected one of {", ".join((*SPLITS, REST))}')
        splits[split].append(row)
    if not any(splits.values()):
        raise DataError(f'{path} lists no images to use; give the dataset_*.json of the Karpathy splits')
    if images is not None:
        _look_for(Path(images), [row['image'] for rows in splits.values() for row in rows])
    return splits


def _row(entry: dict, where: str) -> dict:
    """The manifest row of an entry."""
    for key in ('filename', 'sentences'):
        if not isinstance(entry, dict) or key not in entry:
            raise DataError(f'{where} has no {key!r}; expected filename, sentences and split')
    for key in ('filename', 'filepath'):
        # an entry of Flickr30k has no `filepath`
        if key == 'filename' or entry.get(key) not in (None, ''):
            try:
                checked_path(entry[key], key)
            except ValueError as error:
                raise DataError(f'{where}: {error}; copy the file again') from None
    if not isinstance(entry['sentences'], list):
        raise DataError(f'{where} has sentences={shown(entry["sentences"])}; expected a list')
    texts = []
    for sentence in entry['sentences']:
        raw = sentence.get('raw') if isinstance(sentence, dict) else None
        if not isinstance(raw, str):
            raise DataError(f'{where} ({entry["filename"]}) has a sentence without `raw` text')
        # a few captions of COCO are only spaces, or end with a line end
        if not is_blank(raw):
            try:
                texts.append(checked_caption(' '.join(raw.split()), 'caption'))
            except ValueError as error:
                raise DataError(f'{where} ({entry["filename"]}): {error}; copy the file again') from None
    if not texts:
        raise DataError(f'{where} ({entry["filename"]}) has no captions')
    folder = entry.get('filepath')
    row = {'image': f'{folder}/{entry["filename"]}' if folder else entry['filename'], 'texts': texts}
    image_id = entry.get('cocoid', entry.get('imgid'))
    if image_id is None:
        return row
    if not (is_whole(image_id) or isinstance(image_id, str)):
        raise DataError(f'{where} has the id {shown(image_id)}; expected a number')
    return {**row, 'image_id': image_id}


def _look_for(folder: Path, names: list[str]) -> None:
    there: dict[Path, set[str]] = {}
    missing = []
    for name in names:
        file = folder / name
        if file.parent not in there:
            there[file.parent] = {path.name for path in file.parent.iterdir()} if file.parent.is_dir() else set()
        if file.name not in there[file.parent]:
            missing.append(file)
    if missing:
        raise FileNotFoundError(f'{len(missing)} of {len(names)} images are missing, the first is {missing[0]}')


def write_karpathy(out: str | Path, splits: dict[str, list[dict]], source: str | Path | None = None) -> None:
    """Write ``train.jsonl``, ``val.jsonl`` and ``test.jsonl``; a split without rows is not written.

    Raises:
        UsageError: one of them is ``source``, the file that was read.
    """
    for split in splits:
        refuse_overwriting(Path(out, f'{split}.jsonl'), [source], '--out')
    for split, rows in splits.items():
        if rows:
            write_atomic(Path(out, f'{split}.jsonl'), ''.join(json.dumps(row) + '\n' for row in rows))
