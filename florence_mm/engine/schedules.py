"""Schedules of a config fitted to the length of an epoch."""

import math
from collections.abc import Mapping
from typing import Any

from mmengine.logging import MMLogger


def without_short(schedulers: Any, epoch_length: int, logger: MMLogger) -> Any:
    """Leave out schedules that last less than one iteration, such as a warm-up of half an epoch of one batch.

    mmengine rounds their begin and end down to the same iteration and then raises an error. Each is logged.

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
                f'{schedule["type"]} from epoch {schedule.get("begin", 0)} to {schedule["end"]} lasts less than one of '
                f'the {epoch_length} iterations of an epoch and is left out'
            )
        else:
            kept.append(schedule)
    return kept


def _is_short(schedule: Mapping, epoch_length: int) -> bool:
    if not schedule.get('convert_to_iter_based') or schedule.get('end') is None:
        return False
    begin, end = schedule.get('begin', 0), schedule['end']
    length = schedule.get('epoch_length') or epoch_length
    return begin < end < math.inf and int(begin * length) >= int(end * length)
