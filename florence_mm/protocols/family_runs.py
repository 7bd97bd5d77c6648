"""Training and test of the families' models, each in a process of its own, so that its peak memory is its own."""

import hashlib
import logging
import multiprocessing
import re
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from florence_mm.config.load import load_config
from florence_mm.engine.launch import build_runner, runner_in, set_seed
from florence_mm.errors import UsageError
from florence_mm.models.checkpoints.publishing import find_published
from florence_mm.models.checkpoints.reading import read_checkpoint
from florence_mm.utils.files import require_checkpoint
from florence_mm.utils.home import published_folders
from florence_mm.visualization.curves import training_seconds

from .families import FamilyTask
from .family_configs import (
    WORK_DIRS,
    begins_with,
    config_of,
    folder_of,
    in_one_process,
    last_checkpoint,
    tested_config,
    trains,
)
from .family_data import OwnData, keep_captions
from .kept import checkpoint_digest, data_state, read_result, write_result

#: Runs that all families begin with, whose training is none of theirs.
_TOWERS = ('unicl_', 'quickstart')

#: Name of a run -> its training's seconds; None: no log tells them.
Seconds = dict[str, float | None]


@dataclass(frozen=True)
class Cell:
    """A family's result in a task.

    Attributes:
        score: that of the table.
        figures: all numbers of the test.
        checkpoint: what was tested.
        parameters: of the model, frozen ones included.
        trained: those that learn.
        memory: peak of the test's process in bytes.
        seconds: of the training runs of the family that led to the checkpoint.
    """

    score: float
    figures: Mapping[str, float]
    checkpoint: str
    parameters: int
    trained: int
    memory: int
    seconds: Seconds


@dataclass
class FamilyRuns:
    """Gets models by loading or training them, and tests them; what is done is not done again.

    Attributes:
        out: folder of tests, and of trainings on a user's data.
        runs: folder of trained runs, ``NAME_OF_THE_CONFIG`` each.
        seed: of trainings.
        threads: of torch.
        data: a user's data.
        say: is told each step.
    """

    out: Path
    runs: Path = Path(WORK_DIRS)
    seed: int = 0
    threads: int = 1
    data: OwnData | None = None
    say: Callable[[str], None] = print
    _trained: dict[str, tuple[str, Seconds, bool]] = field(default_factory=dict)

    def run(self, name: str, task: FamilyTask, weights: str | None = None) -> Cell:
        """Test a family in a task, with its model trained first if there is no checkpoint.

        Args:
            name: of the folder of the test, such as ``'git/vqa'``.
            task: config and score.
            weights: a checkpoint; None: look for it, or train it.

        Raises:
            UsageError: the test lacks the score, or a run is unusable.
        """
        cfg = load_config(task.config)
        checkpoint, seconds, _ = self._given(cfg, weights) if weights else self._obtain(task.config)
        for path in begins_with(Config({'model': cfg.model})):  # a checkpoint may hold what was trained alone
            known = trains(cfg) and Path(config_of(path)).stem not in self._trained
            where = self.runs / Path(path).relative_to(WORK_DIRS) if known else self._obtain(config_of(path))[0]
            _replace_text(cfg.model, path, str(where))
        keep_captions(cfg)
        if self.data is not None:
            if self.data.train_questions is not None or self.data.train_captions is not None:
                self.data.replace_training(cfg)  # also what tells the model its answers
            self.data.replace_test(cfg)
        cfg.load_from, cfg.resume, cfg.launcher = checkpoint, False, 'none'
        folder = self.out / name
        cfg.work_dir = str(folder)
        set_seed(cfg, self.seed)
        key = self._key(cfg, checkpoint)
        kept = read_result(folder, key)
        if kept is None:
            self.say(f'test of {checkpoint}')
            figures = in_own_process(_test, cfg, self.threads)
            kept = write_result(folder, key, figures, 0.0)
        figures = dict(kept['figures'])
        if task.score not in figures:
            raise UsageError(f'{task.score} is none of the test of {name}, which has {", ".join(figures)}')
        numbers = {key: int(figures.pop(f'process/{key}')) for key in ('parameters', 'trained', 'memory')}
        return Cell(figures[task.score], figures, checkpoint, seconds=seconds, **numbers)

    def _given(self, cfg: Config, weights: str) -> tuple[str, Seconds, bool]:
        require_checkpoint(weights)
        before: Seconds = {}
        for path in begins_with(cfg if trains(cfg) else load_config(tested_config(cfg))):
            before |= self._seconds_before(path)
        return weights, {**before, weights: log_seconds(Path(weights))}, False

    def _obtain(self, config: str) -> tuple[str, Seconds, bool]:
        """Find or train the model of a config; returns checkpoint, seconds, and whether its data are a user's."""
        name = Path(config).stem
        if name not in self._trained:
            self._trained[name] = self._found_or_trained(config, name)
        return self._trained[name]

    def _found_or_trained(self, config: str, name: str) -> tuple[str, Seconds, bool]:
        cfg = load_config(config)
        if not trains(cfg):
            return self._obtain(tested_config(cfg))
        tower = name.startswith(_TOWERS)
        own = not tower and self.data is not None and self.data.replace_training(cfg)
        needed = begins_with(cfg)
        if own or (not tower and any(self._on_own_data(path) for path in needed)):
            return self._train(cfg, name, needed, own=True)
        last = self.runs / folder_of(name) / last_checkpoint(cfg)
        if last.exists():
            seconds: Seconds = {} if tower else {name: log_seconds(last)}
            for path in needed if not tower else ():
                seconds = {**self._seconds_before(path), **seconds}
            return str(last), seconds, False
        published = find_published(name, published_folders())
        if published is not None:
            return str(published), {} if tower else {name: None}, False
        return self._train(cfg, name, needed, own=False)

    def _train(self, cfg: Config, name: str, needed: list[str], own: bool) -> tuple[str, Seconds, bool]:
        seconds: Seconds = {}
        for path in needed:
            checkpoint, before, _ = self._obtain(config_of(path))
            seconds |= before
            _replace_text(cfg.model, path, checkpoint)
            if cfg.get('load_from') == path:
                cfg.load_from = checkpoint
        in_one_process(cfg, name)
        if own:
            cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None  # of embedded data
            cfg.train_cfg.pop('val_interval', None)
            digest = hashlib.sha256(f'{cfg.dump()}{_state_of(self.data)}'.encode()).hexdigest()[:8]
            folder = self.out / 'trained' / f'{name}-{digest}'
        else:
            folder = self.runs / folder_of(name)
        last = folder / last_checkpoint(cfg)
        if not last.exists():
            self.say(f'training of {name} in {folder}')
            in_own_process(_train, cfg, self.threads, str(folder), self.seed)
        if not last.exists():
            raise UsageError(f'the training of {name} has left no {last}; look at its log')
        return str(last), seconds if name.startswith(_TOWERS) else {**seconds, name: log_seconds(last)}, own

    def _on_own_data(self, path: str) -> bool:
        """Whether what a checkpoint of a config begins with is trained on a user's data, and so anew."""
        config = config_of(path)
        if self.data is None or Path(config).stem.startswith(_TOWERS):
            return False
        cfg = load_config(config)
        return self.data.replace_training(cfg) or any(self._on_own_data(other) for other in begins_with(cfg))

    def _seconds_before(self, path: str) -> Seconds:
        """Seconds of a run that another one began with, and of those before it."""
        config = config_of(path)
        name = Path(config).stem
        if name.startswith(_TOWERS):
            return {}
        seconds: Seconds = {}
        cfg = load_config(config)
        for other in begins_with(cfg):
            seconds |= self._seconds_before(other)
        return {**seconds, name: log_seconds(self.runs / folder_of(name) / last_checkpoint(cfg))}

    def _key(self, cfg: Config, checkpoint: str) -> str:
        dump = cfg.dump()
        return hashlib.sha256(f'{dump}{checkpoint_digest(checkpoint)}{_state_of(self.data)}'.encode()).hexdigest()[:16]


def log_seconds(checkpoint: Path) -> float | None:
    """Seconds of all iterations up to a checkpoint, from the log beside it; None without a log."""
    try:
        _, meta = read_checkpoint(checkpoint)
        return training_seconds(checkpoint.parent, meta.get('iter') or None)
    except FileNotFoundError:
        return None


def in_own_process(work: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a new process, which ends with it, and with this one if it is asked to stop.

    Raises:
        UsageError: the process was killed, as where memory is short, or ended at once.
    """
    others = set(multiprocessing.active_children())
    started: set[BaseProcess] = set()
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
            try:
                called = pool.submit(work, *args)
                started = set(multiprocessing.active_children()) - others
                return called.result()
            except KeyboardInterrupt:
                for process in set(multiprocessing.active_children()) - others:  # otherwise the pool waits for its end
                    process.terminate()
                raise
    except BrokenProcessPool:  # behind the pool, whose thread waits for the process and learns how it ended
        codes = [process.exitcode for process in started]
        if -signal.SIGKILL in codes:
            said = 'was killed; it may need more memory, so close other programs'
        else:
            said = f'ended with status {", ".join(map(str, codes))}; see what it wrote'
        raise UsageError(f'the process {said}') from None


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes.

    Linux tells that of the program in ``/proc``; ``getrusage`` would count the process that started it.
    """
    status = Path('/proc/self/status')
    found = re.search(r'VmHWM:\s+(\d+) kB', status.read_text()) if status.exists() else None
    if found:
        return 1024 * int(found[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else 1024 * peak


def _train(cfg: Config, threads: int, folder: str, seed: int) -> None:
    torch.set_num_threads(threads)
    runner_in(cfg, folder, seed).train()


def _test(cfg: Config, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    runner = build_runner(cfg)
    found = {key: float(value) for key, value in runner.test().items() if isinstance(value, (int, float))}
    sizes = [(p.numel(), p.requires_grad) for p in runner.model.parameters()]
    found['process/parameters'] = sum(size for size, _ in sizes)
    found['process/trained'] = sum(size for size, learns in sizes if learns)
    found['process/memory'] = peak_memory()
    print_log(f'peak memory {found["process/memory"] / 2**20:.0f} MiB', 'current', logging.INFO)
    return found


def _state_of(data: OwnData | None) -> list:
    """Size and time of change of a user's files, which decide results."""
    files = [] if data is None else [data.captions, data.questions, data.train_captions, data.train_questions]
    return data_state([path for one in files if one for path in one if path is not None], '.')


def _replace_text(node: Any, old: str, new: str) -> None:
    for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
        if value == old:
            node[key] = new
        elif isinstance(value, (Mapping, list)):
            _replace_text(value, old, new)
