"""Folders of generated files that are safe to write again."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from florence_mm.utils.files import write_atomic
from florence_mm.utils.progress import ProgressLog


def write_generated(
    out: Path, record: str, options: dict, files: Iterable[tuple[str, bytes]], total: int, what: str
) -> tuple[int, int]:
    """Write files that follow from ``options`` alone.

    A record of the options and of each file's SHA-256 is written last. A folder that agrees with it is left alone,
    which takes a fraction of a second; a missing or damaged file is noticed and written again. Each file is written
    under a temporary name and renamed. Files of other options that were written here before are removed, files that
    others put into the folder stay.

    Args:
        out (Path): The folder.
        record (str): The record's name in it.
        options (dict): Whatever the files depend on, fit for JSON.
        files (Iterable[tuple[str, bytes]]): Name under ``out`` and content of each; not looked at if all are there.
        total (int): How many.
        what (str): The work in the log, as in "drawing scenes".

    Returns:
        tuple: how many files were written, and how many there are.
    """
    wanted = json.loads(json.dumps(options))
    found = _read_record(out / record)
    old = found.get('files', {})
    if found.get('options') == wanted and all(_digest(out / name) == digest for name, digest in old.items()):
        return 0, len(old)
    # without a record what is being written is known to be unfinished
    (out / record).unlink(missing_ok=True)
    digests: dict[str, str] = {}
    written = 0
    progress = ProgressLog(f'{what} in {out}', total)
    for name, data in files:
        digests[name] = hashlib.sha256(data).hexdigest()
        if _digest(out / name) != digests[name]:
            write_atomic(out / name, data, durable=False)  # the record would tell of a damaged one
            written += 1
        progress.update(len(digests))
    for name in set(old) - set(digests):
        (out / name).unlink(missing_ok=True)
    write_atomic(out / record, json.dumps({'options': wanted, 'files': digests}))
    return written, total


def _read_record(path: Path) -> dict:
    """The record of a folder; empty where there is none, or it is damaged."""
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get('files'), dict) else {}


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
