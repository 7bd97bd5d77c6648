"""Results of inferencers: one per input in order, written as they come; an input that fails has an error sentence."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2

from florence_mm.errors import DataError, UsageError, user_sentence
from florence_mm.utils.files import write_atomic

Item = TypeVar('Item')

#: Errors that one input may cause in transforms and models. Others, such as AttributeError, are bugs, and a UsageError
#: is a mistake that every input would meet.
ITEM_ERRORS = (ValueError, RuntimeError, AssertionError, ArithmeticError, IndexError, MemoryError, cv2.error)


class Failed(str):
    """The sentence of an input that failed, in place of its prediction."""


def failure(error: Exception, name: str) -> Failed:
    """Describe in one sentence why an input failed.

    Args:
        error: what was raised.
        name: name of the input.

    Raises:
        Exception: ``error`` itself, if it is of another package and ``FLORENCE_MM_TRACEBACK`` is 1.
    """
    sentence = str(error) if isinstance(error, DataError) else user_sentence(error)
    if sentence is None:
        if os.environ.get('FLORENCE_MM_TRACEBACK') == '1':
            raise error
        said = str(error).strip().partition('\n')[0]
        sentence = (
            f'{name} cannot be processed ({type(error).__name__}{": " if said else ""}{said}); look at it, or set '
            'FLORENCE_MM_TRACEBACK=1 to see where'
        )
    return Failed(sentence if name in sentence else f'{name}: {sentence}')


def predict_each(
    items: Sequence[Item], predict: Callable[[Sequence[Item]], Sequence[Any]], name: Callable[[Item], str], skip: bool
) -> list[Any]:
    """Predict a batch, and if that fails, each input alone, so that one input does not end the others.

    Args:
        items: the inputs.
        predict: function from inputs to one prediction each.
        name: name of an input for its sentence.
        skip: return :class:`Failed` in place of a prediction; otherwise the error of an input is raised.
    """
    if not items:
        return []
    try:
        return list(predict(items))
    except ITEM_ERRORS as error:
        if len(items) > 1:
            # inputs of different sizes may fit only alone
            return [found for item in items for found in predict_each([item], predict, name, skip)]
        if not skip:
            raise
        return [failure(error, name(items[0]))]


class ResultFile:
    """Results in order, and a JSON file of them.

    Until :meth:`finish` writes the file, each result is a line of ``<name>.part`` beside it, in JSON: what was done
    survives an error, Ctrl-C and a kill.

    Args:
        path: the JSON file; None: no file.

    Attributes:
        results (list[dict]): the results so far.

    Raises:
        UsageError: the path is a folder.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path)
        self.results: list[dict[str, Any]] = []
        self._part = None
        if self.path is not None:
            if self.path.is_dir():
                raise UsageError(f'{self.path} is a folder, and the results need a file; name one, such as x.json')
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._part_path = self.path.with_name(f'{self.path.name}.part')
            self._part = self._part_path.open('wb')

    def __enter__(self) -> 'ResultFile':
        return self

    def __exit__(self, *_: Any) -> None:
        if self._part is not None:
            self._part.close()
            if not self.results:
                self._part_path.unlink(missing_ok=True)

    def add(self, result: dict[str, Any]) -> None:
        """Append a result."""
        self.results.append(result)
        if self._part is not None:
            self._part.write(_encode(json.dumps(result, ensure_ascii=False) + '\n'))
            self._part.flush()

    def finish(self, head: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        """Write the file, the values of ``head`` and then the results under ``key``; returns the results."""
        if self.path is not None and self._part is not None:
            text = json.dumps({**head, key: self.results}, indent=1, ensure_ascii=False)
            write_atomic(self.path, _encode(text + '\n'))
            self._part.close()
            self._part_path.unlink(missing_ok=True)
        return self.results


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
