"""What a resumed run takes from its checkpoint, and what from its config.

One rule: the checkpoint gives the state, the config gives every setting. A setting that differs from the checkpoint's
run is used from the resumed iteration on and named in the log; one that the state does not fit is refused.
"""

import copy
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler

from florence_mm.errors import UsageError

from .changed_settings import changed_keys

#: Options of torch's optimizers that choose an implementation and change no result.
_IMPLEMENTATION = ('params', 'foreach', 'fused', 'capturable', 'differentiable')
#: State of an optimizer that has a number for each of the parameter, in torch's and our own.
_LIKE_PARAMETER = {'exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'momentum_buffer'}
_MOVING = ('last_step', 'verbose')


class Position(NamedTuple):
    """What the position in the data depends on.

    Attributes:
        unit: ``'epochs'`` or ``'iterations'``, which the loop counts.
        samples: size of the training data.
        batch: samples of all processes in one iteration.
        batches: iterations in an epoch.
    """

    unit: str
    samples: int
    batch: int
    batches: int


def keep_position(runner: Any, position: Position) -> None:
    """Compare the data with those of the resumed checkpoint, and note them for the checkpoints of this run.

    Raises:
        UsageError: the run was resumed, and its position has no meaning in these data.
    """
    noted = runner.message_hub.get_info('resume/data', None)
    if runner.iter and noted is not None:
        before = Position(*noted)
        same = before == position if position.unit == 'epochs' else before[:2] == position[:2]
        if not same:
            raise UsageError(
                f'the checkpoint is of a run by {_in_words(before)}, but this run is by {_in_words(position)}; resume '
                'with the data, batch size and number of processes of that run, or start a new run from its weights '
                'with load_from'
            )
    runner.message_hub.update_info('resume/data', list(position))


def keep_order(runner: Any, sampler: Any) -> None:
    """Compare the order of the samples with that of the resumed checkpoint, and note it for those of this run.

    Checkpoints of releases that drew every order have no note.

    Raises:
        UsageError: the run was resumed, and its samples are in another order now.
    """
    order = getattr(sampler, 'order_name', None)
    if order is None:  # a sampler of another package
        return
    noted = runner.message_hub.get_info('resume/order', 'drawn')
    if runner.iter and order != noted and order != 'unshuffled':
        raise UsageError(
            f"the samples of the checkpoint's run are in the order {noted!r}, and those of this run are {order!r}, so "
            'some would come twice and others never; resume with the block of its data set and the order of its sampler'
        )
    runner.message_hub.update_info('resume/order', order)


def _in_words(position: Position) -> str:
    epochs = f' ({position.batches} batches an epoch)' if position.unit == 'epochs' else ''
    return f'{position.unit} over {position.samples} samples in batches of {position.batch}{epochs}'


class ScheduleOfConfig:
    """The learning rates, other settings of the optimizer and schedules as the config has them.

    Made before a checkpoint is loaded, which overwrites them; :meth:`restore` brings them back where they differ.

    Args:
        optim_wrapper: the built wrapper of an optimizer, or of several.
        schedulers: the built schedulers: a list, a dict of lists by optimizer, or None.
    """

    def __init__(self, optim_wrapper: OptimWrapper | OptimWrapperDict, schedulers: list | dict | None) -> None:
        self.wrappers = dict(_by_name(optim_wrapper))
        lists = schedulers if isinstance(schedulers, dict) else {None: schedulers or []}
        self.schedulers: list[_ParamScheduler] = [one for several in lists.values() for one in several]
        self._groups = {name: [_settings(group) for group in _groups(one)] for name, one in self.wrappers.items()}
        self._states = [_state(scheduler) for scheduler in self.schedulers]

    def changes(self, loaded: int) -> list[str]:
        """List settings that the checkpoint has overwritten with other values, as ``lr 0.1 -> 0.01``.

        Args:
            loaded: number of schedules in the checkpoint.
        """
        found = []
        for name, wrapper in self.wrappers.items():
            for ours, group in zip(self._groups[name], _groups(wrapper), strict=True):
                found += _changed_settings(ours, _settings(group))
        if loaded != len(self.schedulers):
            found.append(f'{loaded} schedules -> {len(self.schedulers)}')
        for ours, scheduler in zip(self._states, self.schedulers, strict=True):
            theirs, kind = _state(scheduler), type(scheduler).__name__
            if theirs.keys() != ours.keys():
                found.append(f'another schedule -> {kind}')
                continue
            for key in _arguments(scheduler):
                if key in ours and ours[key] != theirs.get(key):
                    found.append(f'{kind}.{key} {theirs.get(key)} -> {ours[key]}')
        return list(dict.fromkeys(found))

    def restore(self, iterations: int, epochs: int) -> None:
        """Bring back the config's settings, and step its schedules to the resumed position.

        Args:
            iterations: number of the resumed iteration.
            epochs: number of the resumed epoch; 0 in training by iterations.

        Raises:
            UsageError: a schedule follows the scores of validations.
        """
        following = [type(one).__name__ for one in self.schedulers if getattr(one, 'need_val_args', False)]
        if following:
            raise UsageError(
                f'{following[0]} follows the scores of validations and cannot be computed for changed settings; resume '
                'with the optimizer and schedules of that run, or start a new run from its weights with load_from'
            )
        for name, wrapper in self.wrappers.items():
            for ours, group in zip(self._groups[name], _groups(wrapper), strict=True):
                for key in [key for key in group if key.startswith('initial_') and key not in ours]:
                    del group[key]
                group.update(copy.deepcopy(ours))
        for state, scheduler in zip(self._states, self.schedulers, strict=True):
            scheduler.__dict__ = {'optimizer': scheduler.optimizer, **copy.deepcopy(state)}
            scheduler.optimizer._global_step = max(iterations, 1)  # else it warns that the optimizer has made no step
        by_iteration = [one for one in self.schedulers if not one.by_epoch]
        by_epoch = [one for one in self.schedulers if one.by_epoch]
        length = iterations // epochs if epochs else 0
        for iteration in range(1, iterations + 1):
            for scheduler in by_iteration:
                scheduler.step()
            if length and iteration % length == 0 and iteration // length <= epochs:
                for scheduler in by_epoch:
                    scheduler.step()

    def rate(self) -> str:
        """The present learning rate of the first parameter group."""
        return f'{next(_groups(next(iter(self.wrappers.values()))))["lr"]:.4g}'


def use_config(runner: Any, schedule: ScheduleOfConfig, schedules: int, text: str | None) -> None:
    """Use the settings of the config in a run whose state was loaded from a checkpoint, and log those that differ.

    Args:
        runner: the runner, at the resumed position.
        schedule: optimizer and schedules of the config, made before the checkpoint was loaded.
        schedules: number of schedules in the checkpoint.
        text: config of the checkpoint's run.

    Raises:
        UsageError: a changed schedule follows the scores of validations.
    """
    changed = schedule.changes(schedules)
    if changed:
        before = schedule.rate()
        schedule.restore(runner.train_loop.iter, runner.train_loop.epoch)
        runner.logger.warning(
            f'optimizer or schedule differ from the checkpoint ({", ".join(changed[:6])}): those of this config go on '
            f'at iteration {runner.iter} with lr {schedule.rate()} instead of {before}'
        )
    keys = changed_keys(text, runner.cfg)
    if keys:
        more = f' and {len(keys) - 12} more' if len(keys) > 12 else ''
        runner.logger.warning(
            f'settings that differ from those of the checkpoint are used from here on: {", ".join(keys[:12])}{more}'
        )


def check_seed(runner: Any, trained: int | None, filename: str) -> None:
    """Refuse another seed than the checkpoint's run had, as it decides the order of the data.

    Args:
        runner: the runner.
        trained: the seed of the checkpoint's run; None: unknown.
        filename: the checkpoint, for the message.

    Raises:
        UsageError: the config sets another seed.
    """
    seed = runner._randomness_cfg.get('seed')
    if None not in (trained, seed) and trained != seed:
        raise UsageError(
            f'{filename} is of a run with the seed {trained}, which decides the order of its data, but this config has '
            f'randomness.seed={seed}; give --seed {trained}, or leave the seed unset'
        )


def check_optimizer(optim_wrapper: OptimWrapper | OptimWrapperDict, loaded: dict, filename: str) -> None:
    """Refuse the state of another optimizer, which torch loads if the numbers of parameters are equal.

    Args:
        optim_wrapper: the built wrapper of the config.
        loaded: state of the checkpoint's wrapper.
        filename: the checkpoint, for the message.

    Raises:
        UsageError: the optimizers have other settings or keep other states, or states of other sizes.
    """
    for name, wrapper in _by_name(optim_wrapper):
        theirs = loaded if name is None else loaded.get(name, {})
        groups = theirs.get('param_groups') or [{}]
        state = wrapper.optimizer.defaults
        missing = [key for key in state if key not in groups[0] and key not in _IMPLEMENTATION]
        foreign = [
            key
            for key in groups[0]
            if key not in state and key not in _IMPLEMENTATION and not key.startswith(('initial_', 'param_'))
        ]
        # torch adds settings from one version to the next; another optimizer lacks some and has others
        if missing and foreign:
            raise UsageError(
                f'{filename} is of another optimizer: it has {foreign[0]}, but {type(wrapper.optimizer).__name__} has '
                f'{missing[0]}; resume with optim_wrapper.optimizer of that run, or start a new run from its weights '
                'with load_from'
            )
        parameters = [value for group in wrapper.optimizer.param_groups for value in group['params']]
        for index, entry in theirs.get('state', {}).items():
            size = parameters[index].numel() if index < len(parameters) else None
            for key in sorted(_LIKE_PARAMETER & entry.keys()):
                if size not in (None, entry[key].numel()):
                    raise UsageError(
                        f'{filename}: {key} of parameter {index} of the optimizer has {entry[key].numel()} numbers, '
                        f'and the parameter {size}; resume from a checkpoint as a run wrote it'
                    )


def use_implementation(optim_wrapper: OptimWrapper | OptimWrapperDict, loaded: dict) -> None:
    """Let the state of a checkpoint be loaded for the kernels of the config, such as fused ones; they need other steps.

    Args:
        optim_wrapper: the built wrapper of the config.
        loaded: state of the checkpoint's wrapper, changed in place.
    """
    for name, wrapper in _by_name(optim_wrapper):
        theirs = loaded if name is None else loaded.get(name, {})
        groups = zip(wrapper.optimizer.param_groups, theirs.get('param_groups', []), strict=False)
        for ours, group in groups:
            group.update({key: ours[key] for key in _IMPLEMENTATION[1:] if key in ours})


def _by_name(optim_wrapper: OptimWrapper | OptimWrapperDict) -> Iterator[tuple[str | None, OptimWrapper]]:
    yield from optim_wrapper.items() if isinstance(optim_wrapper, OptimWrapperDict) else [(None, optim_wrapper)]


def _groups(wrapper: OptimWrapper) -> Iterator[dict]:
    # with several groups mmengine adds one without weights, whose rate it logs as base_lr
    yield from wrapper.param_groups


def _settings(group: dict) -> dict:
    return copy.deepcopy({key: value for key, value in group.items() if key != 'params'})


def _changed_settings(ours: dict, theirs: dict) -> list[str]:
    found = []
    for key in ours.keys() & theirs.keys():
        scheduled = f'initial_{key}' in ours or f'initial_{key}' in theirs
        follows = key == 'betas' and 'initial_momentum' in theirs
        if scheduled or follows or key in _IMPLEMENTATION:
            continue
        if _comparable(ours[key]) != _comparable(theirs[key]):
            found.append(f'{key.removeprefix("initial_")} {theirs[key]} -> {ours[key]}')
    for key in ('lr', 'momentum'):
        ours_too, theirs_too = f'initial_{key}' in ours, f'initial_{key}' in theirs
        if ours_too != theirs_too and key in ours and key in theirs:
            found.append(
                f'{key} {"with" if theirs_too else "without"} a schedule -> {"with" if ours_too else "without"}'
            )
    return found


def _comparable(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _state(scheduler: _ParamScheduler) -> dict:
    return copy.deepcopy(scheduler.state_dict())


def _arguments(scheduler: _ParamScheduler) -> list[str]:
    """Arguments of the classes of a scheduler, which mmengine's keep under the same names."""
    names = [name for cls in type(scheduler).__mro__ for name in inspect.signature(cls.__init__).parameters]
    return [name for name in dict.fromkeys(names) if name not in _MOVING]
