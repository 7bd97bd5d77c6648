"""Writing folders of generated files so that a second run only repairs them."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from florence_mm.utils.digests import sha256_of
from florence_mm.utils.files import write_atomic
from florence_mm.utils.progress import ProgressLog


def write_generated(
    out: Path, record: str, options: dict, files: Iterable[tuple[str, bytes]], total: int, task: str
) -> tuple[int, int]:
    """Write files whose content depends only on ``options``.

    A record of the options and the SHA-256 of each file is written last. A folder that agrees with its record is not
    changed, which takes a fraction of a second; missing or damaged files are written again, atomically. Files that an
    earlier run wrote with other options are removed, all other files in the folder stay.

    Args:
        out (Path): The folder.
        record (str): Name of the record in it.
        options (dict): All that the files depend on, in JSON types.
        files (Iterable[tuple[str, bytes]]): Name under ``out`` and content of each file; not iterated if all exist.
        total (int): Number of files.
        task (str): The work in the log, as in "drawing scenes".

    Returns:
        tuple: number of files written, and number of files in all.
    """
    wanted = json.loads(json.dumps(options))
    found = _read_record(out / record)
    old = found.get('files', {})
    if found.get('options') == wanted and all(_digest(out / name) == digest for name, digest in old.items()):
        return 0, len(old)
    # a folder without record is unfinished
    (out / record).unlink(missing_ok=True)
    digests: dict[str, str] = {}
    written = 0
    progress = ProgressLog(f'{task} in {out}', total)
    for name, data in files:
        digests[name] = hashlib.sha256(data).hexdigest()
        if _digest(out / name) != digests[name]:
            write_atomic(out / name, data, durable=False)  # the record reveals a damaged one
            written += 1
        progress.update(len(digests))
    for name in set(old) - set(digests):
        (out / name).unlink(missing_ok=True)
    write_atomic(out / record, json.dumps({'options': wanted, 'files': digests}))
    return written, total


def _read_record(path: Path) -> dict:
    """The record of a folder; empty if it is missing or damaged."""
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get('files'), dict) else {}


def _digest(path: Path) -> str | None:
    return sha256_of(path) if path.is_file() else None
