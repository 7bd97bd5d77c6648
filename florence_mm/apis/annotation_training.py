"""The models of a run of the data engine, from its config: specialists, chooser, parser, and what is trained."""

import importlib
import inspect
import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from florence_mm.config.load import load_config
from florence_mm.curation.annotation import Models
from florence_mm.curation.annotation_parsing import Parser, SpacyParser
from florence_mm.curation.annotation_sources import Specialist, Trainer, TrainingData
from florence_mm.engine.launch import runner_in
from florence_mm.errors import UsageError, shown
from florence_mm.utils.files import write_atomic
from florence_mm.utils.nearest import near_or_all

from .annotation import (
    CaptionSpecialist,
    DetectorSpecialist,
    GroundingSpecialist,
    RegionClassifier,
    TowerChooser,
    check_tasks,
)
from .annotation_tasks import TaskSpecialist

#: Specialists by their ``kind`` in a config.
KINDS: dict[str, type] = {
    'detector': DetectorSpecialist,
    'grounding': GroundingSpecialist,
    'captioner': CaptionSpecialist,
    'region_classifier': RegionClassifier,
    'task': TaskSpecialist,
}

_MANIFEST = 'TaskManifest'


def build_models(config: Mapping[str, Any]) -> Models:
    """Build the models that a config names.

    Args:
        config: ``specialists``, a list of dicts with ``kind``, ``source`` and the arguments of a class of
            :data:`KINDS`, or with ``kind='module:function'``, of whatever that takes;
            ``chooser``, a dict with ``model`` and ``checkpoint``; ``parser``, a model of spaCy; ``trainer``, a dict
            with ``kind`` ``'config'``, ``'command'`` or ``'module:function'``; ``device``.

    Raises:
        UsageError: a kind or an argument is wrong, or a model cannot be had.
    """
    device = config.get('device')
    parser = None if config.get('parser') is None else SpacyParser(config['parser'])
    given = config.get('specialists') or ()
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        raise UsageError(f"specialists={shown(given)} must be a list, such as [dict(kind='detector', model='...')]")
    specialists = tuple(
        make_specialist(one, f'specialists[{number}]', device, parser) for number, one in enumerate(given)
    )
    chooser = None
    if config.get('chooser') is not None:
        chooser = _call(TowerChooser, _dict(config['chooser'], 'chooser'), 'chooser', {'device': device})
    trainer = None
    if config.get('trainer') is not None:
        trainer = _make_trainer(_dict(config['trainer'], 'trainer'), device, parser)
    return Models(specialists, chooser, parser, trainer)


def make_specialist(given: Any, where: str, device: str | None = None, parser: Parser | None = None) -> Specialist:
    """Build a specialist of a config's dict.

    Args:
        given: the dict, see :func:`build_models`.
        where: what messages call it.
        device: where it computes.
        parser: of the run.

    Raises:
        UsageError: the kind is unknown, or an argument is wrong.
    """
    options = _dict(given, where)
    kind = options.pop('kind', None)
    make = _imported(kind, where) if isinstance(kind, str) and ':' in kind else KINDS.get(kind)
    if make is None:
        raise UsageError(
            f'{where}: kind={shown(kind)} is no specialist{near_or_all(str(kind), KINDS)}, or one of your own as '
            "'module:function'"
        )
    options.setdefault('source', str(kind))
    specialist = _call(make, options, where, {'device': device, 'parser': parser})
    missing = next((name for name in ('source', 'name', 'tasks') if not hasattr(specialist, name)), None)
    if missing is not None or not callable(specialist):
        raise UsageError(f'{where}: {kind} has no {missing or "call"}; see florence_mm.curation.annotation_sources')
    check_tasks(specialist.source, specialist.tasks)
    return specialist


def _dict(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise UsageError(f'{where} is {shown(given)}; expected a dict')
    return dict(given)


def _imported(name: str, where: str) -> Any:
    module, _, attribute = name.partition(':')
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f'{where}: {name} cannot be imported ({error}); correct the name, or set PYTHONPATH') from None


def _call(make: Any, options: Mapping[str, Any], where: str, run: Mapping[str, Any]) -> Any:
    """Call with a config's options, and with those of the run that the function takes and the config does not set."""
    try:
        taken = inspect.signature(make).parameters
    except (TypeError, ValueError):
        raise UsageError(f'{where}: {shown(make)} is no function whose arguments are known; name another') from None
    options = {**{key: value for key, value in run.items() if key in taken}, **options}
    any_key = any(one.kind is one.VAR_KEYWORD for one in taken.values())
    for key in options:
        if key not in taken and not any_key:
            raise UsageError(f'{where} has {key!r}, which is no option of it{near_or_all(key, taken)}')
    needed = (name for name, one in taken.items() if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD)
    missing = next((name for name in needed if name not in options), None)
    if missing is not None:
        raise UsageError(f'{where} has no {missing!r}; add it')
    return make(**options)


# --- what is trained --------------------------------------------------------------------------------------------------


def _make_trainer(options: dict[str, Any], device: str | None, parser: Parser | None) -> Trainer:
    kind = options.pop('kind', None)
    kinds = {'config': ConfigTrainer, 'command': CommandTrainer}
    make = _imported(kind, 'trainer') if isinstance(kind, str) and ':' in kind else kinds.get(kind)
    if make is None:
        raise UsageError(f"trainer: kind={shown(kind)} is none of {', '.join(kinds)}, and no 'module:function'")
    return _call(make, options, 'trainer', {'device': device, 'parser': parser})


class _MakesSpecialist:
    """A trainer whose model becomes a specialist of a config's dict."""

    def __init__(self, made_of: Any, specialist: Mapping[str, Any], device: str | None, parser: Parser | None) -> None:
        self._specialist, self._device, self._parser = dict(specialist), device, parser
        self.name = json.dumps([made_of, self._specialist], sort_keys=True, default=str)

    def _make(self, **places: str) -> Specialist:
        options = {
            key: value.format(**places) if isinstance(value, str) else value for key, value in self._specialist.items()
        }
        return make_specialist({'source': 'model', **options}, 'trainer.specialist', self._device, self._parser)


class ConfigTrainer(_MakesSpecialist):
    """Trains a config whose training data is a :class:`~florence_mm.datasets.tasks.TaskManifest`.

    Its ``ann_file`` becomes the annotations that are kept, also within a mixture. A run that was stopped is resumed,
    which gives the model of one that was not.

    Args:
        config: the config file, or the name of a model.
        specialist: what the trained model becomes, see :func:`make_specialist`; ``model`` and ``checkpoint`` may be
            left out, or have ``{out}`` in them, the folder of the run.
        seed: of training.
        options: changes of the config, as ``--cfg-options`` makes them.
        device, parser: of the specialist.
    """

    def __init__(
        self,
        config: str,
        specialist: Mapping[str, Any],
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        device: str | None = None,
        parser: Parser | None = None,
    ) -> None:
        self._config, self._seed, self._options = config, seed, dict(options or {})
        made_of = [load_config(config).to_dict(), seed, self._options]
        super().__init__(made_of, {'model': config, 'checkpoint': '{checkpoint}', **specialist}, device, parser)
        self._read(None)

    def _read(self, data: TrainingData | None) -> Config:
        cfg = load_config(self._config)
        cfg.merge_from_dict(self._options)
        manifests = list(_find_manifests((cfg.get('train_dataloader') or {}).get('dataset')))
        if len(manifests) != 1:
            raise UsageError(
                f'trainer: {self._config} trains on {len(manifests)} data sets of the type {_MANIFEST}; give a config '
                'that trains on one, whose ann_file becomes the annotations'
            )
        if data is not None:
            manifests[0]['ann_file'], manifests[0]['data_prefix'] = str(data.annotations), str(data.root)
            manifests[0].pop('data_root', None)
        return cfg

    def __call__(self, data: TrainingData, folder: Path) -> Specialist:
        """Train the model of a round, or go on with it."""
        run, done = folder / 'run', folder / 'done'
        written = run / 'last_checkpoint'
        if not done.exists():
            runner_in(self._read(data), run, self._seed).train()
            write_atomic(done, '')
        return self._make(out=str(run), checkpoint=written.read_text().strip())


def _find_manifests(node: Any) -> Any:
    """The data sets of a config's dict that are read from a task file."""
    if isinstance(node, Mapping):
        if str(node.get('type')).rpartition('.')[2] == _MANIFEST:
            yield node
        else:
            for value in node.values():
                yield from _find_manifests(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _find_manifests(value)


class CommandTrainer(_MakesSpecialist):
    """Trains by a command of the user's.

    Args:
        command: with ``{annotations}`` (the task file), ``{root}`` (folder of its pictures), ``{out}`` (folder for the
            model) and ``{round}`` in it. Called again after a kill, with the same folder.
        specialist: what its model becomes, see :func:`make_specialist`, such as ``dict(kind='detector',
            model='mine.py', checkpoint='{out}/last.pth')``.
        device, parser: of the specialist.
    """

    def __init__(
        self,
        command: str,
        specialist: Mapping[str, Any],
        device: str | None = None,
        parser: Parser | None = None,
    ) -> None:
        self._command = command
        super().__init__(command, specialist, device, parser)

    def __call__(self, data: TrainingData, folder: Path) -> Specialist:
        """Run the command of a round, unless it has ended well before."""
        out, done = folder / 'run', folder / 'done'
        places = {'annotations': data.annotations, 'root': data.root, 'out': out, 'round': data.round}
        if not done.exists():
            out.mkdir(parents=True, exist_ok=True)
            words = [word.format(**places) for word in shlex.split(self._command)]
            try:
                code = subprocess.run(words, check=False).returncode
            except OSError as error:
                raise UsageError(f'trainer: {words[0]} cannot be run ({error.strerror}); correct the command') from None
            if code:
                raise UsageError(f'trainer: the command {shown(shlex.join(words))} ended with status {code}; mend it')
            write_atomic(done, '')
        return self._make(**{key: str(value) for key, value in places.items()})
