"""Schedules of a config fitted to the length of an epoch."""

import math
from collections.abc import Mapping
from typing import Any

from mmengine.logging import MMLogger

from florence_mm.errors import UsageError
from florence_mm.utils.nearest import near_or_all


def without_short(schedulers: Any, epoch_length: int, logger: MMLogger) -> Any:
    """Leave out schedules of less than one iteration, and warm-ups of one, as of a fifth of an epoch of 5 batches.

    mmengine rounds begin and end of the former down to the same iteration and then raises an error; the latter begin at
    their factor and end before they raise it, so that the whole run would keep a hundredth of its rate. Each is logged.

    Args:
        schedulers (dict or list): ``param_scheduler`` of a config.
        epoch_length (int): Iterations of an epoch.
        logger (MMLogger): Where it is logged.
    """
    if isinstance(schedulers, Mapping) and 'type' not in schedulers:  # of several optimizers
        return {name: without_short(schedulers[name], epoch_length, logger) for name in schedulers}
    kept = []
    for schedule in schedulers if isinstance(schedulers, (list, tuple)) else [schedulers]:
        if isinstance(schedule, Mapping) and _is_short(schedule, epoch_length):
            logger.warning(
                f'{schedule["type"]} from epoch {schedule.get("begin", 0)} to {schedule["end"]} lasts '
                f'{"one" if _iterations(schedule, epoch_length) else "less than one"} of the {epoch_length} iterations '
                'of an epoch and is left out'
            )
        else:
            kept.append(schedule)
    return kept


def check_followed(schedulers: Any, metrics: Mapping[str, Any]) -> None:
    """Check that the scores which schedules follow are those of the validation; mmengine ignores an unknown one.

    Args:
        schedulers (list or dict): The built schedules of a run, None if there are none.
        metrics (dict): Scores of a validation.

    Raises:
        UsageError: a ``ReduceOnPlateau`` schedule monitors a score that the validation does not have.
    """
    lists = schedulers.values() if isinstance(schedulers, Mapping) else [schedulers or []]
    for schedule in (one for several in lists for one in several):
        monitor = getattr(schedule, 'monitor', None)
        if getattr(schedule, 'need_val_args', False) and monitor not in metrics:
            raise UsageError(
                f'param_scheduler: {type(schedule).__name__} follows monitor={monitor!r}, which no validation gives'
                f'{near_or_all(str(monitor), metrics)}'
            )


def _is_short(schedule: Mapping, epoch_length: int) -> bool:
    if not schedule.get('convert_to_iter_based') or schedule.get('end') is None:
        return False
    if not schedule.get('begin', 0) < schedule['end'] < math.inf:
        return False
    warm_up = str(schedule['type']).rpartition('.')[2].startswith('Linear') and schedule.get('end_factor', 1) == 1
    return _iterations(schedule, epoch_length) <= warm_up


def _iterations(schedule: Mapping, epoch_length: int) -> int:
    length = schedule.get('epoch_length') or epoch_length
    return int(schedule['end'] * length) - int(schedule.get('begin', 0) * length)
