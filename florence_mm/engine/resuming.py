"""What a resumed run takes from its checkpoint, and what from its config.

One rule: the checkpoint gives the state, the config gives every setting. A setting that differs from the checkpoint's
run is used from the resumed iteration on and named in the log; one that the state does not fit is refused.
"""

import ast
import copy
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler

from florence_mm.errors import UsageError


class Treatment(NamedTuple):
    """How resuming treats a part of a run.

    Attributes:
        part: the part, in words and as its config key.
        treatment: ``'restored'`` from the checkpoint, ``'used'`` as the config says, or ``'refused'`` if it differs.
        note: what follows from it.
    """

    part: str
    treatment: str
    note: str


#: The table of docs/training.md.
TREATMENTS = (
    Treatment('weights, EMA, state of the optimizer, loss scale, summed gradients', 'restored', 'bit for bit'),
    Treatment('position in the data, seed, log history, best score', 'restored', 'the run goes on where it stopped'),
    Treatment('`optim_wrapper.optimizer`: learning rate, weight decay and the like', 'used', 'a changed one is logged'),
    Treatment(
        '`param_scheduler`, `train_cfg.max_epochs`, `train_cfg.max_iters`',
        'used',
        'a changed schedule is computed from the beginning to the resumed iteration, so that it ends where the config '
        'says',
    ),
    Treatment(
        '`train_dataloader.batch_size` and processes, training by iterations',
        'used',
        'the run goes on after the last used sample',
    ),
    Treatment('all other settings: pipelines, hooks, intervals, workers, mixed precision', 'used', 'logged as well'),
    Treatment('`model`: other weights, shapes or kinds of numbers', 'refused', 'use `load_from`'),
    Treatment('`optim_wrapper.optimizer.type` and its parameter groups', 'refused', 'use `load_from`'),
    Treatment('`randomness.seed`, if it is set to another', 'refused', 'give the seed of that run or none'),
    Treatment('number of training samples', 'refused', 'the order of the samples would be another'),
    Treatment(
        '`train_dataloader.batch_size` times processes, training by epochs', 'refused', 'an epoch has another length'
    ),
    Treatment('training by epochs instead of iterations, or the reverse', 'refused', 'the order would be another'),
    Treatment(
        '`optim_wrapper.accumulative_counts`, while gradients are summed up',
        'refused',
        'resume from a checkpoint between two updates',
    ),
    Treatment(
        'a changed learning rate or schedule with `ReduceOnPlateau`', 'refused', 'it follows scores and has no formula'
    ),
)

_PLACES = ('work_dir', 'load_from', 'resume', 'launcher', 'experiment_name', 'visualizer.name', 'randomness.seed')
#: Options of torch's optimizers that choose an implementation and change no result.
_IMPLEMENTATION = ('params', 'foreach', 'fused', 'capturable', 'differentiable')
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


def check_optimizer(optim_wrapper: OptimWrapper | OptimWrapperDict, loaded: dict, filename: str) -> None:
    """Refuse the state of another optimizer, which torch loads if the numbers of parameters are equal.

    Args:
        optim_wrapper: the built wrapper of the config.
        loaded: state of the checkpoint's wrapper.
        filename: the checkpoint, for the message.

    Raises:
        UsageError: the optimizers have other settings or keep other states.
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


def changed_keys(text: str | None, cfg: Any) -> list[str]:
    """List the config keys whose values differ from those of the checkpoint's run, as ``key before -> now``.

    Args:
        text: the run's config as its checkpoint stores it; it is read, not executed.
        cfg: the present config.
    """
    before, now = _plain(text or ''), _plain(cfg.pretty_text)
    if before is None or now is None:
        return []
    before, now = dict(_leaves(before)), dict(_leaves(now))
    keys = [key for key in {**before, **now} if not key.startswith(_PLACES)]
    return [
        f'{key} {_short(before, key)} -> {_short(now, key)}' for key in keys if before.get(key, ()) != now.get(key, ())
    ]


def _short(leaves: dict, key: str) -> str:
    text = repr(leaves[key]) if key in leaves else 'unset'
    return text if len(text) <= 40 else f'{text[:37]}...'


def _plain(text: str) -> dict | None:
    """Values of a config's text: assignments of literals and ``dict(...)``; None if it has anything else."""
    try:
        body = _DictCalls().visit(ast.parse(text)).body
        return {node.targets[0].id: ast.literal_eval(node.value) for node in body}
    except (SyntaxError, ValueError, AttributeError, TypeError):
        return None


class _DictCalls(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.AST:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.func, ast.Name) or node.func.id != 'dict' or node.args:
            return node
        keys = [ast.Constant(word.arg) for word in node.keywords]
        return ast.copy_location(ast.Dict(keys, [word.value for word in node.keywords]), node)


def _leaves(node: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    found = False
    for key, value in items:
        found = True
        yield from _leaves(value, f'{path}.{key}' if path else str(key))
    if not found:
        yield path, node


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
