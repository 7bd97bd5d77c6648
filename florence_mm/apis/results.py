"""Files of the results of inferencers, written as they come, and how a command reports inputs that failed."""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from florence_mm.errors import UsageError
from florence_mm.utils.files import write_atomic


class ResultFile:
    """Results in order, and a JSON file of them.

    Until :meth:`finish` writes the file, each result is a line of ``<name>.part`` beside it, in JSON: what was done
    survives an error, Ctrl-C and a kill.

    Args:
        path: the JSON file.

    Attributes:
        results (list[dict]): the results so far.

    Raises:
        UsageError: the path is a folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.results: list[dict[str, Any]] = []
        if self.path.is_dir():
            raise UsageError(f'{self.path} is a folder, and the results need a file; name one, such as x.json')
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._part_path = self.path.with_name(f'{self.path.name}.part')
        self._part = self._part_path.open('wb')

    def __enter__(self) -> 'ResultFile':
        return self

    def __exit__(self, *_: Any) -> None:
        self._part.close()
        if not self.results:
            self._part_path.unlink(missing_ok=True)

    def add(self, result: dict[str, Any]) -> None:
        """Append a result."""
        self.results.append(result)
        self._part.write(_encode(json.dumps(result, ensure_ascii=False) + '\n'))
        self._part.flush()

    def finish(self, head: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        """Write the file, the values of ``head`` and then the results under ``key``; returns the results."""
        text = json.dumps({**head, key: self.results}, indent=1, ensure_ascii=False)
        write_atomic(self.path, _encode(text + '\n'))
        self._part.close()
        self._part_path.unlink(missing_ok=True)
        return self.results


def write_results(
    results: Iterable[dict[str, Any]], path: str | Path, head: Mapping[str, Any], key: str
) -> list[dict[str, Any]]:
    """Write results to a :class:`ResultFile` as they come, and return them.

    Args:
        results: the results, as they come.
        path: the JSON file.
        head: values that the file has before the results.
        key: key of the results in the file.

    Raises:
        UsageError: the path is a folder.
    """
    with ResultFile(path) as file:
        for result in results:
            file.add(result)
        return file.finish(head, key)


def _encode(text: str) -> bytes:
    # a byte of a file name that is no UTF-8 is a lone surrogate in Python, and \udcXX in JSON
    return text.encode('utf-8', 'backslashreplace')


def report_failures(results: Iterable[Mapping[str, Any]], what: str) -> int:
    """Print the sentences of failed inputs and, last, their number.

    Args:
        results: results of an inferencer.
        what: name of the inputs, as in "images".

    Returns:
        the exit status of a command: 0; 1 if some inputs failed; 2 if all did.
    """
    results = list(results)
    sentences = [result['error'] for result in results if 'error' in result]
    for sentence in sentences:
        print(f'error: {sentence}', file=sys.stderr)
    if not sentences:
        return 0
    print(f'{len(sentences)} of {len(results)} {what} failed')
    return 2 if len(sentences) == len(results) else 1


def print_any_name() -> None:
    r"""Let ``print`` write bytes of file names that are no text as ``\udcXX`` instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')
