"""Runner of a suite: what is there is evaluated, what is missing is named, and a failure does not end the others."""

from __future__ import annotations

import functools
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from florence_mm.config.load import load_config
from florence_mm.errors import UsageError, raise_if_asked, user_sentence
from florence_mm.utils.files import write_atomic

from .base import Entry, LoadedLike, Preparable
from .kept import read_result, result_key, write_result
from .locations import below
from .progress import SuiteProgress
from .ranks import from_first, is_first, together
from .suited import encoder_of, unsuited_config, unsuited_towers
from .suites import matches
from .table import DONE, FAILED, MISSING, UNSUITED, UNTRAINED, Row, write_table
from .training import embedded_model, environment, starts_from_towers, train, training_command

#: Function that loads a model from its config and checkpoint.
Loader = Callable[[Config, str], LoadedLike]


@dataclass(frozen=True)
class SuitePlan:
    """What a suite evaluates, with which data, and where results go.

    Args:
        config: config file of the two towers.
        checkpoint: their checkpoint.
        data_root: folder of all data sets.
        out_dir: folder of results.
        load: function that loads a model.
        published: function that finds the published weights of a config file's model; None: there are none.
        task_checkpoints: checkpoints by pattern of the protocols that need their own.
        task_configs: configs by pattern of the protocols, in place of the suite's.
        train: train the models that have no checkpoint.
        options: options of the protocols, such as ``batch_size``.
        tell: function that shows a line.
    """

    config: str
    checkpoint: str
    data_root: Path
    out_dir: Path
    load: Loader
    published: Callable[[str], str | None] = lambda config: None
    task_checkpoints: Mapping[str, str] = field(default_factory=dict)
    task_configs: Mapping[str, str] = field(default_factory=dict)
    train: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    tell: Callable[[str], None] = print

    def config_of(self, entry: Entry) -> str:
        """Config of the model that an entry evaluates."""
        return _chosen(self.task_configs, entry) or entry.config or self.config

    def checkpoint_of(self, entry: Entry) -> str | None:
        """Checkpoint of the model that an entry evaluates; None if it must be trained first."""
        given = _chosen(self.task_checkpoints, entry)
        if given is not None or not entry.trained:
            return given or self.checkpoint
        return self.published(self.config_of(entry))


def _chosen(given: Mapping[str, str], entry: Entry) -> str | None:
    found = [value for pattern, value in given.items() if matches(entry.protocol.name, pattern)]
    return found[-1] if found else None


def run_suite(entries: Sequence[Entry], plan: SuitePlan, about: Mapping[str, str | None]) -> list[Row]:
    """Evaluate the protocols of a suite and write its table, also after each of them.

    A result is kept in the protocol's folder and not computed again while checkpoint, settings and data are the same,
    so that a suite that was stopped goes on with the next protocol. In several processes (:mod:`.ranks`) all evaluate
    each protocol, and the first writes and tells.

    Args:
        entries: the protocols.
        plan: models, data and folders.
        about: what is evaluated, for the head of the table.

    Returns:
        the outcomes, in the order of ``entries``.
    """
    read = functools.cache(load_config)  # a config for many sets has one model
    settled = from_first(lambda: [_settled(entry, plan, read) for entry in entries])
    pairs = list(zip(entries, settled, strict=True))
    rows = {entry.protocol.name: row for entry, row in pairs if row is not None}
    waiting = [entry for entry, row in pairs if row is None]
    plan = plan if is_first() else replace(plan, tell=lambda line: None)
    plan.tell(f'{len(entries)} protocols: {len(waiting)} to run, {len(rows)} kept from before or without data')
    progress = SuiteProgress({entry.protocol.name: entry.cost for entry in waiting}, plan.tell)
    models = _Models(plan)
    for entry in waiting:
        progress.start(entry.protocol.name)
        rows[entry.protocol.name] = row = _evaluate(entry, plan, models, progress)
        plan.tell(_outcome(row))
        so_far = [rows[other.protocol.name] for other in entries if other.protocol.name in rows]
        if is_first():
            write_table(so_far, plan.out_dir, about, drawn=False)
    ordered = [rows[entry.protocol.name] for entry in entries]
    if is_first():
        write_table(ordered, plan.out_dir, about)
    return ordered


def _settled(entry: Entry, plan: SuitePlan, read: Callable[[str], Config]) -> Row | None:
    """Outcome of an entry that need not or cannot run: its data or model are missing, or it has a result already."""
    try:
        sentence = _unsuited(entry, plan, read)
        if sentence is not None:
            return _row(entry, UNSUITED, sentence)
        sentence = entry.protocol.missing(plan.data_root)
        if sentence is not None:
            return _row(entry, MISSING, sentence)
        checkpoint = plan.checkpoint_of(entry)
        if checkpoint is None:
            return None if plan.train else _row(entry, UNTRAINED, _untrained(entry, plan))
        if isinstance(entry.protocol, Preparable):
            entry.protocol.prepare(plan.data_root)
        return _kept(entry, plan, checkpoint)
    except Exception as error:  # another protocol may still run
        return _failed(entry, plan, error)


def _unsuited(entry: Entry, plan: SuitePlan, read: Callable[[str], Config]) -> str | None:
    """Why the evaluated model cannot do a protocol; None if it can, or another model is there for it."""
    if _chosen(plan.task_configs, entry) is not None or _chosen(plan.task_checkpoints, entry) is not None:
        return None
    towers = read(plan.config)
    if entry.config is None:
        return unsuited_towers(entry, towers)
    if entry.trained and plan.checkpoint_of(entry) is not None:
        return None
    with environment(entry.variables):
        cfg = read(entry.config)
    takes = not entry.trained or plan.train and starts_from_towers(cfg)
    return unsuited_config(entry, encoder_of(cfg.get('model')), encoder_of(towers.get('model')), takes)


def _kept(entry: Entry, plan: SuitePlan, checkpoint: str) -> Row | None:
    key = result_key(entry.protocol, _config(entry, plan), checkpoint, plan.data_root)
    result = read_result(_folder(entry, plan), key)
    return None if result is None else _done(entry, result, checkpoint, kept=True)


def _evaluate(entry: Entry, plan: SuitePlan, models: _Models, progress: SuiteProgress) -> Row:
    folder = _folder(entry, plan)
    try:
        checkpoint = plan.checkpoint_of(entry)
        if checkpoint is None:
            config = _chosen(plan.task_configs, entry)
            checkpoint = train(entry, config, plan.checkpoint, plan.data_root, plan.out_dir / 'trained')
            if isinstance(entry.protocol, Preparable):
                entry.protocol.prepare(plan.data_root)
            if (row := _kept(entry, plan, checkpoint)) is not None:
                return row
        cfg = _config(entry, plan)
        key = from_first(lambda: result_key(entry.protocol, cfg, checkpoint, plan.data_root))
        options = {'cache_dir': plan.out_dir / 'features', 'progress': progress.update, **plan.options}

        def work() -> dict[str, float]:
            folder.mkdir(parents=True, exist_ok=True)
            figures = entry.protocol.run(models.get(cfg, checkpoint), plan.data_root, folder, **options)
            _require_figure(figures.get(entry.protocol.metric), entry)
            return figures

        figures = together(work)
    except Exception as error:
        progress.end()
        return _failed(entry, plan, error)
    seconds = progress.end()
    return _done(entry, from_first(lambda: write_result(folder, key, figures, seconds)), checkpoint)


def _require_figure(figure: float | None, entry: Entry) -> None:
    if figure is not None and not math.isfinite(figure):
        raise UsageError(
            f'{entry.protocol.metric} of {entry.protocol.name} is {figure}, as where nothing is to be found in the '
            'data, or the model gives no numbers; look at both'
        )


class _Models:
    """The model that was loaded last, as neighbours in a suite evaluate the same one."""

    def __init__(self, plan: SuitePlan) -> None:
        self.plan = plan
        self._key: tuple | None = None
        self._loaded: LoadedLike | Exception | None = None

    def get(self, cfg: Config, checkpoint: str) -> LoadedLike:
        key = cfg.dump(), checkpoint
        if key != self._key:
            self._key, self._loaded = key, None  # the old one makes room first
            self._loaded = self._load(cfg, checkpoint)
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded

    def _load(self, cfg: Config, checkpoint: str) -> LoadedLike | Exception:
        content = cfg.to_dict()
        content['model'] = below(content['model'], self.plan.data_root)
        try:
            loaded = self.plan.load(Config(content, filename=cfg.filename), checkpoint)
        except Exception as error:  # told for each protocol of this model, without loading it again
            return error
        return loaded


def _config(entry: Entry, plan: SuitePlan) -> Config:
    with environment(entry.variables):
        return load_config(plan.config_of(entry))


def _folder(entry: Entry, plan: SuitePlan) -> Path:
    return plan.out_dir / 'protocols' / entry.protocol.name


def _row(entry: Entry, status: str, note: str | None = None, **values: Any) -> Row:
    protocol = entry.protocol
    return Row(protocol.name, protocol.group, protocol.metric, status, note, **values)


def _done(entry: Entry, result: Mapping[str, Any], checkpoint: str, kept: bool = False) -> Row:
    values = {'figures': result['figures'], 'seconds': result['seconds'], 'kept': kept, 'checkpoint': str(checkpoint)}
    return _row(entry, DONE, getattr(entry.protocol, 'note', None), **values)


def _untrained(entry: Entry, plan: SuitePlan) -> str:
    name = embedded_model(plan.config_of(entry))
    if name is not None:
        command = f'python tools/misc/publish_embedded.py {name}'
        return f'its model is trained on embedded data first: run {command}, or let --train do it'
    command = training_command(entry, _chosen(plan.task_configs, entry))
    return (
        f'its model is trained first: run {command} and give its checkpoint with --task-checkpoint '
        f'{entry.protocol.name} FILE, or let --train do it'
    )


def _failed(entry: Entry, plan: SuitePlan, error: Exception) -> Row:
    """Outcome of a protocol that raised an error; its stack trace goes to ``error.txt`` in the protocol's folder."""
    raise_if_asked()  # a worker that a signal has ended may be noticed before the signal
    file = _folder(entry, plan) / 'error.txt'
    if is_first():
        write_atomic(file, ''.join(traceback.format_exception(error)))
    sentence = user_sentence(error) or f'{type(error).__name__}: {error} ({file} has the stack trace)'
    return _row(entry, FAILED, ' '.join(sentence.split()))


def _outcome(row: Row) -> str:
    if row.status != DONE:
        return f'  {row.status}: {row.note}'
    value = row.figures.get(row.metric)
    figure = 'written' if value is None else f'{row.metric} {100 * value:.1f} %'
    return f'  {figure} ({row.seconds:.1f} s)'
