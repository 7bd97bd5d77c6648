"""Errors of what a run does for the first time: a first iteration, a first validation, a test.

They come from settings that do not fit the model or the data, which only the classes of other packages find out, in
whatever way. Later errors are bugs, or depend on the data, and keep their stack trace.
"""

import traceback
from typing import Any

from mmengine.runner import BaseLoop, TestLoop, ValLoop

from florence_mm.errors import UsageError, user_sentence

from .building import SHOW_TRACE, in_words

_WITHOUT_SETTINGS = ('torch', 'mmengine', 'florence_mm')


def first_failure(runner: Any, error: Exception) -> UsageError | None:
    """Tell an error in one sentence if what failed had not been done before in this run; None for other errors.

    Args:
        runner: the runner.
        error: an error that is no sentence of ours.
    """
    if user_sentence(error) is not None:
        return None
    objects = [frame.f_locals.get('self') for frame, _ in traceback.walk_tb(error.__traceback__)]
    loop = next((one for one in reversed(objects) if isinstance(one, BaseLoop)), None)
    if isinstance(loop, TestLoop):
        what = 'the test'
    elif isinstance(loop, ValLoop) and not runner.message_hub.get_info('summary/validations'):
        what = 'the first validation'
    elif loop is not None and loop is runner._train_loop and runner.iter == runner.began_at:
        what = 'the first iteration'
    else:
        return None
    return UsageError(
        f'{what} failed in {_innermost(objects)} ({in_words(error)}); a value of the config does not fit the model or '
        f'the data, or a class of the config has a bug; {SHOW_TRACE}'
    )


def _innermost(objects: list[Any]) -> str:
    """Name of the innermost class that a config may name, of the objects whose methods were called."""
    classes = [type(one) for one in objects if one is not None]
    named = [cls for cls in classes if cls.__module__.partition('.')[0] not in _WITHOUT_SETTINGS]
    return (named or classes)[-1].__name__
