"""Loading any known checkpoint into a model, with a list of what became of every key."""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.logging import MMLogger, print_log
from torch import nn

from florence_mm.registry import WEIGHT_INITIALIZERS

from .fitting import fit_state_dict
from .formats import convert_state_dict
from .reading import read_checkpoint
from .renaming import StateDict

_SHOWN = 5


@dataclass
class LoadReport:
    """What became of the keys of a checkpoint and of a model.

    Attributes:
        source: the file.
        format: the layout it was recognised as.
        loaded: keys whose tensors went into the model as they were.
        resized: keys whose tensors went in after a resize, with both shapes.
        inflated: keys of an image model whose tensors went into a video model's with an axis of time, with both shapes.
        missing: keys of the model that the checkpoint lacks; they keep their values.
        unexpected: keys of the checkpoint that the model lacks.
        skipped: keys of the checkpoint left out on purpose, with the reason.
    """

    source: str
    format: str
    loaded: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)
    inflated: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """A few lines for a log."""
        counts = f'{len(self.loaded)} loaded, {len(self.resized)} resized'
        if self.inflated:
            counts += f', {len(self.inflated)} inflated'
        lines = [f'{self.source} ({self.format}): {counts}']
        for name in ('resized', 'inflated'):
            if changed := getattr(self, name):
                lines.append(f'  {name}: ' + _some([f'{key} {how}' for key, how in changed.items()]))
        for reason in dict.fromkeys(self.skipped.values()):
            lines.append(f'  skipped, {reason}: ' + _some([key for key, why in self.skipped.items() if why == reason]))
        for name in ('missing', 'unexpected'):
            if getattr(self, name):
                lines.append(f'  {name}: ' + _some(getattr(self, name)))
        return '\n'.join(lines)


def _some(keys: list[str]) -> str:
    more = f' and {len(keys) - _SHOWN} more' if len(keys) > _SHOWN else ''
    return ', '.join(keys[:_SHOWN]) + more


def load_checkpoint(model: nn.Module, path: str | Path, prefix: str | None = None, strict: bool = False) -> LoadReport:
    """Load a checkpoint of any known format into a model.

    Tensors of another size are fitted by :func:`~florence_mm.models.checkpoints.fitting.fit_state_dict`.

    Args:
        model: where the tensors go.
        path: a file or a URL, see :func:`~florence_mm.models.checkpoints.reading.read_checkpoint`.
        prefix: take only the keys that begin with it (after the renaming to our layout), without it. For example
            ``'image_encoder.'`` for the backbone of a pretrained two-tower model.
        strict: every key of both sides must be loaded.

    Returns:
        what became of every key; also logged.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unreadable file, nothing that matches, or with ``strict`` anything that does not.
    """
    return load_tensors(model, read_checkpoint(path)[0], path, prefix, strict)


def load_tensors(
    model: nn.Module, state: StateDict, path: str | Path, prefix: str | None = None, strict: bool = False
) -> LoadReport:
    """Load the tensors that a checkpoint had, as :func:`load_checkpoint` does.

    Args:
        model: where they go.
        state: tensors by key, in the layout of the file.
        path: the file they were read from, for the report and for messages.
        prefix: as of :func:`load_checkpoint`.
        strict: every key of both sides must be loaded.

    Raises:
        ValueError: nothing matches, or with ``strict`` anything does not.
    """
    name, state, skipped = convert_state_dict(state)
    report = LoadReport(str(path), name, skipped=skipped)
    if prefix:
        prefix = prefix.rstrip('.') + '.'
        report.skipped.update({key: f'not under {prefix}' for key in state if not key.startswith(prefix)})
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if not state:
            raise ValueError(f'{path} ({name}) has no keys under {prefix!r}; they begin with {_tops(report.skipped)}')

    own = model.state_dict()
    fitting = fit_state_dict(model, state)
    report.resized, report.inflated = fitting.resized, fitting.inflated
    report.loaded = [key for key in fitting.tensors if key not in fitting.resized and key not in fitting.inflated]
    report.unexpected = [key for key in state if key not in own]
    for key in fitting.unfit:
        shapes = f'{tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model'
        report.skipped[key] = f'of another shape ({shapes})'
    report.missing = [key for key in own if key not in fitting.tensors]
    if not fitting.tensors:
        raise ValueError(
            f'nothing in {path} ({name}) matches {type(model).__name__}: its keys begin with {_tops(state)}, '
            f'the model has {_tops(own)}{_suggest_prefix(state, own)}'
        )
    wrong = report.missing + report.unexpected + [key for key in report.skipped if key in own]
    if strict and wrong:
        raise ValueError(f'{path} does not fit {type(model).__name__} exactly: {_some(wrong)}')
    model.load_state_dict(fitting.tensors, strict=False)
    print_log(f'Checkpoint {report}', logger=MMLogger.get_current_instance())
    return report


def _tops(keys: Iterable[str]) -> str:
    """The first parts of dotted keys, for a message."""
    tops = list(dict.fromkeys(key.split('.')[0] for key in keys))
    return ', '.join(map(repr, tops[:_SHOWN])) or 'nothing'


def _suggest_prefix(state: Iterable[str], own: Container[str]) -> str:
    for key in state:
        for at in (i for i, letter in enumerate(key) if letter == '.'):
            if key[at + 1 :] in own:
                return f'; did you mean prefix={key[: at + 1]!r}?'
    return ''


@WEIGHT_INITIALIZERS.register_module('Pretrained')
class PretrainedInit:
    """Initialise a module from any known checkpoint: ``init_cfg=dict(type='florence_mm.Pretrained', checkpoint=...)``.

    Works in the configs of every OpenMMLab package.

    Args:
        checkpoint: a file or a URL.
        prefix: which part of it, for example ``'image_encoder.'``.
        strict: every key must fit.
    """

    def __init__(self, checkpoint: str, prefix: str | None = None, strict: bool = False) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.strict = strict

    def __call__(self, module: nn.Module) -> None:
        """Load into ``module``."""
        report = load_checkpoint(module, self.checkpoint, self.prefix, self.strict)
        # mmengine keeps a note of where each parameter got its value
        for name, parameter in module.named_parameters():
            if hasattr(module, '_params_init_info') and parameter in module._params_init_info:
                found = (report.loaded, report.resized, report.inflated)
                came = 'loaded' if any(name in keys for keys in found) else 'not'
                module._params_init_info[parameter]['init_info'] = f'{came} from {self.checkpoint}'
