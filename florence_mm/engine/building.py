"""The last line of defence against settings that a constructor does not take: one sentence instead of a stack trace.

:mod:`florence_mm.config.check` refuses what can be told from signatures. What a constructor finds out itself, in
whatever way, is told here with the config's key and the class.
"""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dataset import Compose

from florence_mm.errors import UsageError, user_sentence

# what a step raises if an earlier one is missing, and what constructors raise for values that they do not take; other
# errors are bugs and keep their stack trace
_OUT_OF_ORDER = (TypeError, LookupError, AttributeError, AssertionError)
UNFIT = (*_OUT_OF_ORDER, ValueError, ArithmeticError, RuntimeError, ImportError)
SHOW_TRACE = 'FLORENCE_MM_TRACEBACK=1 shows where it failed'
_LONGEST = 300


@contextmanager
def building(key: str) -> Iterator[None]:
    """Tell an error of a constructor in one sentence, with the key of the config and the class; also a decorator.

    Args:
        key (str): Key of the config whose objects are built.

    Raises:
        UsageError: a constructor has raised an error that is no sentence of ours.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except UNFIT as error:
        if user_sentence(error) is not None:
            raise
        name, values = _built(error)
        what = f'{name} does not take these values{values}' if name else 'the value is not accepted'
        raise UsageError(f'{key}: {what} ({in_words(error)}); correct them; {SHOW_TRACE}') from error


class TellingPipeline(Compose):
    """Pipeline that names the step that failed because of the steps before it.

    Args:
        pipeline (Compose): The pipeline whose steps are run.
    """

    def __init__(self, pipeline: Compose) -> None:
        self.transforms = pipeline.transforms

    def __call__(self, data: dict) -> dict | None:
        """Run all steps; None if one of them drops the sample.

        Raises:
            UsageError: a step lacks what an earlier one should have made.
        """
        for number, step in enumerate(self.transforms):
            there = sorted(map(str, data))
            try:
                data = step(data)
            except _OUT_OF_ORDER as error:
                if user_sentence(error) is not None:
                    raise
                raise UsageError(
                    f'pipeline.{number}: {type(step).__name__} failed ({in_words(error)}) on a sample that has '
                    f'{", ".join(there)}; check which steps come before it, and its values; {SHOW_TRACE}'
                ) from error
            if data is None:
                return None
        return data


def tell_failing_steps(dataset: Any) -> None:
    """Replace the pipelines of a data set, and of those in it, by :class:`TellingPipeline`, in place."""
    fields = getattr(dataset, '__dict__', {})
    if type(fields.get('pipeline')) is Compose:
        dataset.pipeline = TellingPipeline(dataset.pipeline)
    for name in ('_seeded', 'dataset', '_dataset'):
        if fields.get(name) is not None:
            tell_failing_steps(fields[name])
    for inner in fields.get('datasets') or ():
        tell_failing_steps(inner)


def _built(error: BaseException) -> tuple[str | None, str]:
    """Name and values of the innermost object that mmengine was building, from the frames of its builder."""
    found: tuple[str | None, str] = None, ''
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name != 'build_from_cfg':
            continue
        settings = frame.f_locals.get('cfg')
        cls = frame.f_locals.get('obj_cls') or frame.f_locals.get('obj_type')
        if cls is None and isinstance(settings, Mapping):
            cls = settings.get('type')
        if isinstance(settings, Mapping):
            plain = {key: value for key, value in settings.items() if key not in ('type', '_scope_')}
            values = ', '.join(f'{key}={_short(value)}' for key, value in plain.items())
            found = str(getattr(cls, '__name__', cls)), f', {_cut(values)}' if values else ''
    return found


def _short(value: Any) -> str:
    return repr(value) if isinstance(value, (str, int, float, type(None))) else type(value).__name__


def in_words(error: BaseException) -> str:
    """Class and text of an error, on one line."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return f'{type(error).__name__}: {_cut(" ".join(str(text).split()))}'


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f'{text[:_LONGEST]}...'
