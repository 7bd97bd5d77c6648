"""Files of the results of inferencers, written as they come, and how a command reports inputs that failed."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from florence_mm.errors import UsageError
from florence_mm.formats.feature_rows import writing_rows
from florence_mm.utils.files import refuse_overwriting, replacing
from florence_mm.utils.words import counted
from florence_mm.visualization.canvas import save_png

from .inputs import keep_originals


class ResultFile:
    """A JSON file of results, in order.

    Until :meth:`finish` writes the file, each result is a line of ``<name>.part`` beside it, in JSON: what was done
    survives an error, Ctrl-C and a kill. Results are not kept in memory.

    Args:
        path: the JSON file.

    Attributes:
        count (int): number of results so far.

    Raises:
        UsageError: the path is a folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.count = 0
        if self.path.is_dir():
            raise UsageError(f'{self.path} is a folder, and the results need a file; name one, such as x.json')
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._part_path = self.path.with_name(f'{self.path.name}.part')
        self._part = self._part_path.open('wb')

    def __enter__(self) -> 'ResultFile':
        return self

    def __exit__(self, *_: Any) -> None:
        self._part.close()
        if not self.count:
            self._part_path.unlink(missing_ok=True)

    def add(self, result: dict[str, Any]) -> None:
        """Append a result; arrays in it are left out."""
        plain = {key: value for key, value in result.items() if not isinstance(value, np.ndarray)}
        self.count += 1
        self._part.write(_encode(json.dumps(plain, ensure_ascii=False) + '\n'))
        self._part.flush()

    def finish(self, head: Mapping[str, Any], key: str) -> None:
        """Write the file: the values of ``head``, and then the results under ``key``."""
        self._part.close()
        # the text of json.dumps with indent=1 for the whole, without having the whole in memory
        start, end = json.dumps({**head, key: []}, indent=1, ensure_ascii=False).rsplit('[]', 1)
        with replacing(self.path) as temporary, temporary.open('wb') as file, self._part_path.open('rb') as lines:
            file.write(_encode(start) + b'[')
            for number, line in enumerate(lines):
                text = json.dumps(json.loads(line), indent=1, ensure_ascii=False)
                file.write((b',' if number else b'') + _encode('\n' + text).replace(b'\n', b'\n  '))
            file.write((b'\n ]' if self.count else b']') + _encode(end + '\n'))
        self._part_path.unlink(missing_ok=True)


def write_results(
    results: Iterable[dict[str, Any]], path: str | Path, head: Mapping[str, Any], key: str
) -> Iterator[dict[str, Any]]:
    """Yield results, each after it was written to a :class:`ResultFile`, which is finished after the last.

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
            yield result
        file.finish(head, key)


class Output:
    """Where an inferencer writes: a JSON file of the results, a folder with a drawing each, a file of features.

    Args:
        path: the JSON file; None: none.
        folder: the folder of the drawings; None: nothing is drawn.
        head: values that the file has before the results.
        key: key of the results in the file, such as "images".
        rows: the ``.npy`` file of ``features`` of the results; None: none.
    """

    def __init__(
        self,
        path: str | Path | None,
        folder: str | Path | None,
        head: Mapping[str, Any],
        key: str,
        rows: str | Path | None = None,
    ) -> None:
        self.path, self.rows = path, rows
        self.folder = None if folder is None else Path(folder)
        self.head, self.key = head, key

    def check_inputs(self, files: Sequence[str | Path]) -> None:
        """Check that nothing that is written could replace an input file.

        Raises:
            UsageError: it could.
        """
        if self.folder is not None:
            keep_originals(files, self.folder)
        for name, path in (('out', self.path), ('features', self.rows)):
            if path is not None:
                refuse_overwriting(path, files, name)

    def save_drawing(self, drawing: np.ndarray, result: dict[str, Any], name: str) -> None:
        """Write a drawing as PNG into the folder, and put its name into the result as ``picture``."""
        save_png(drawing, self.folder / name)
        result['picture'] = name

    def write(self, results: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield results, each after it was written, see :func:`write_results` and :func:`number_rows`."""
        numbered = iter(results) if self.rows is None else number_rows(results, self.rows)
        return numbered if self.path is None else write_results(numbered, self.path, self.head, self.key)


def number_rows(results: Iterable[dict[str, Any]], path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield results, with the number of their row as ``row`` if they have ``features``, which go to a ``.npy`` file."""
    with writing_rows(path) as rows:
        for result in results:
            if 'features' in result:
                result['row'] = rows.add(result['features'])
            yield result


def _encode(text: str) -> bytes:
    # a byte of a file name that is no UTF-8 is a lone surrogate in Python, and \udcXX in JSON
    return text.encode('utf-8', 'backslashreplace')


def report_failures(results: Iterable[Mapping[str, Any]], what: str) -> int:
    """Print the sentences of failed inputs and, last, their number.

    Args:
        results: results of an inferencer.
        what: name of one input, as in "image".

    Returns:
        the exit status of a command: 0; 1 if some inputs failed; 2 if all did.
    """
    results = list(results)
    sentences = [result['error'] for result in results if 'error' in result]
    for sentence in sentences:
        print(f'error: {sentence}', file=sys.stderr)
    if not sentences:
        return 0
    print(f'{len(sentences)} of {counted(len(results), what)} failed')
    return 2 if len(sentences) == len(results) else 1


def print_any_name() -> None:
    r"""Let ``print`` write bytes of file names that are no text as ``\udcXX`` instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')
