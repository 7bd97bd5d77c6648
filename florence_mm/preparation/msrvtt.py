"""Manifests of MSR-VTT for text-to-video retrieval (1K-A protocol) from its public files.

The files are those that CLIP4Clip's README links (``msrvtt_data.zip``) and that mmaction2 reads too:

- ``MSRVTT_data.json``: ``sentences``, a list of ``{caption, video_id, sen_id}``, 20 for each of the 10,000 videos, and
  ``videos``, which is unused here;
- ``MSRVTT_train.9k.csv`` (or ``.7k``): the column ``video_id``, one training video per row;
- ``MSRVTT_JSFUSION_test.csv``: the columns ``key``, ``vid_key``, ``video_id``, ``sentence``; 1,000 rows, one query for
  each test video (the split of JSFusion, arXiv 1808.02559).

The video ``video7010`` is the file ``video7010.mp4``.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmengine.logging import print_log

from florence_mm.errors import DataError
from florence_mm.formats.captions import checked_caption
from florence_mm.formats.rows import read_rows
from florence_mm.utils.files import refuse_overwriting, write_atomic
from florence_mm.utils.json_files import read_json, require_list


def _rows(path: str | Path, columns: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of these columns."""
    for line, row in read_rows(path):
        if isinstance(row, DataError):
            raise row
        missing = [column for column in columns if column not in row]
        if missing:
            raise DataError(
                f'{path}, line {line}: no {missing[0]!r}; the columns of the public file are needed, here '
                f'{", ".join(columns)}'
            )
        yield line, [row[column] for column in columns]


def _checked(text: object, name: str, path: str | Path, line: int) -> str:
    try:
        return checked_caption(text, name)
    except ValueError as error:
        raise DataError(f'{path}, line {line}: {error}; copy the file again') from None


def _once(values: Iterable[tuple[int, str]], path: str | Path) -> list[str]:
    """Check that video ids are unique, and return them."""
    lines: dict[str, int] = {}
    for line, video in values:
        _checked(video, 'video_id', path, line)
        if lines.setdefault(video, line) != line:
            raise DataError(f'{path}, line {line}: the video {video!r} is that of line {lines[video]}; remove one')
    return list(lines)


def read_captions(path: str | Path) -> dict[str, list[str]]:
    """Read the captions of each video id from ``MSRVTT_data.json``, in the order of the file.

    Raises:
        FileNotFoundError, DataError: the file is missing or has another layout.
    """
    path = Path(path)
    content = read_json(path, missing='give the MSRVTT_data.json of the public archive')
    sentences = require_list(content, 'sentences', path, 'the MSRVTT_data.json of the public archive')
    captions: dict[str, list[str]] = {}
    for place, sentence in enumerate(sentences):
        try:
            captions.setdefault(checked_caption(sentence['video_id'], 'video_id'), []).append(
                checked_caption(sentence['caption'])
            )
        except (KeyError, TypeError):
            raise DataError(f'{path}: sentence {place} lacks `video_id` or `caption`; expected both') from None
        except ValueError as error:
            raise DataError(f'{path}: sentence {place}: {error}') from None
    return captions


def read_training_videos(path: str | Path) -> list[str]:
    """Read the video ids of ``MSRVTT_train.9k.csv``.

    Raises:
        FileNotFoundError, DataError: the file is missing, lacks the column, or names a video twice.
    """
    return _once(((line, video) for line, (video,) in _rows(path, ('video_id',))), path)


def read_queries(path: str | Path) -> dict[str, str]:
    """Read the query of each video id from ``MSRVTT_JSFUSION_test.csv``.

    Raises:
        FileNotFoundError, DataError: the file is missing, lacks a column, or names a video twice.
    """
    rows = list(_rows(path, ('video_id', 'sentence')))
    videos = _once(((line, video) for line, (video, _) in rows), path)
    texts = [_checked(text, 'sentence', path, line) for line, (_, text) in rows]
    return dict(zip(videos, texts, strict=True))


class VideoFiles:
    """Video files of a folder by video id; missing ones are left out up to a maximum.

    Args:
        folder (str | Path): Folder of the files.
        suffix (str): File name after the video id.
        max_missing (int): How many may be missing before it is an error.

    Raises:
        FileNotFoundError: there is no such folder.
        DataError: ``max_missing`` is negative.
    """

    def __init__(self, folder: str | Path, suffix: str = '.mp4', max_missing: int = 0) -> None:
        if max_missing < 0:
            raise DataError(f'{max_missing} videos may be missing; give 0 or more (--skip-missing)')
        self.folder, self.suffix, self.max_missing = Path(folder), suffix, max_missing
        if not self.folder.is_dir():
            raise FileNotFoundError(f'there is no folder {self.folder}; give the one with the videos')
        self.missing: list[str] = []

    def existing(self, videos: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield video id and file name of the existing files.

        Raises:
            DataError: more than ``max_missing`` are missing, over all calls.
        """
        for video in videos:
            name = video + self.suffix
            if (self.folder / name).is_file():
                yield video, name
                continue
            self.missing.append(name)
            if len(self.missing) > self.max_missing:
                raise DataError(
                    f'{self.folder} lacks {name}, and {self.max_missing} missing videos are allowed; restore it, or '
                    'allow more with --skip-missing'
                )
            if len(self.missing) <= 10:
                print_log(f'left out: {self.folder / name} is missing', 'current')


def write_msrvtt(
    out: str | Path,
    files: VideoFiles,
    test_csv: str | Path,
    train_csv: str | Path | None = None,
    annotations: str | Path | None = None,
) -> dict[str, int]:
    """Write the manifest ``test.jsonl`` and, with ``train_csv``, ``train.jsonl``.

    A row has ``video``, a file name in the folder of the videos, and ``texts``: the one query of a test video, or all
    captions of a training video.

    Args:
        out (str | Path): Folder of the manifests.
        files (VideoFiles): The videos.
        test_csv (str | Path): ``MSRVTT_JSFUSION_test.csv``.
        train_csv (str | Path | None): ``MSRVTT_train.9k.csv``; needs ``annotations``.
        annotations (str | Path | None): ``MSRVTT_data.json``; needs ``train_csv``.

    Returns:
        dict[str, int]: Number of videos in each manifest.

    Raises:
        FileNotFoundError, DataError: a file is missing or unusable, a training video has no caption or is also a test
            video, or only one of ``train_csv`` and ``annotations`` is given.
        UsageError: a manifest is one of the files that are read.
    """
    if annotations is not None and train_csv is None:
        raise DataError(f'{annotations} has captions of training videos, but no list of them; give --train-csv too')
    if train_csv is not None and annotations is None:
        raise DataError(f'{train_csv} names videos without captions; give MSRVTT_data.json too (--annotations)')
    queries = read_queries(test_csv)
    manifests = {'test': [{'video': name, 'texts': [queries[video]]} for video, name in files.existing(queries)]}
    if train_csv is not None:
        training, captions = read_training_videos(train_csv), read_captions(annotations)
        for video in training:
            if video in queries:
                raise DataError(f'{train_csv}: {video!r} is a test video of {test_csv}; take it out of one of them')
            if video not in captions:
                raise DataError(f'{train_csv}: {video!r} has no caption in {annotations}; give files of one edition')
        manifests['train'] = [{'video': name, 'texts': captions[video]} for video, name in files.existing(training)]
    for split, rows in manifests.items():
        if not rows:
            raise DataError(f'none of the {split} videos is in {files.folder}; give the folder with the videos')
    for split in manifests:
        refuse_overwriting(Path(out) / f'{split}.jsonl', [test_csv, train_csv, annotations], '--out')
    for split, rows in manifests.items():
        write_atomic(Path(out) / f'{split}.jsonl', ''.join(json.dumps(row) + '\n' for row in rows))
    return {split: len(rows) for split, rows in manifests.items()}
