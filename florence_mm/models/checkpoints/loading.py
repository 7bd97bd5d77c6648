"""Loading checkpoints of any known format into a model, with a report of every key."""

import logging
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from torch import nn

from florence_mm.registry import WEIGHT_INITIALIZERS

from .classifiers import fit_classifier
from .clip_towers import drop_other_tower
from .contents import check_types, check_values, some
from .coverage import Missing, check_coverage, left_out_sentence, missing_sentence
from .fitting import fit_state_dict
from .formats import converted, find_format, first_parts, without_computed
from .reading import read_checkpoint
from .renaming import FORMATS, Format, Source, StateDict
from .settings import Setting, check_settings
from .text_modes import fit_text_modes


@dataclass
class LoadReport:
    """Report of which keys of a checkpoint and a model were loaded.

    Attributes:
        source: the file.
        format: name of the detected format.
        loaded: keys of tensors loaded unchanged.
        resized: keys of tensors loaded after resizing, with both shapes.
        inflated: keys of tensors of an image model loaded into a video model, with both shapes.
        missing: keys of the model that the checkpoint lacks; they keep their values.
        unexpected: keys of the checkpoint that the model lacks.
        skipped: keys of the checkpoint that were not loaded on purpose, with the reason.
        notes: settings that the model must have and the file does not tell.
        summary: one sentence that says how much of the model was loaded, and what was not.
    """

    source: str
    format: str
    loaded: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)
    inflated: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    summary: str = ''

    def __str__(self) -> str:
        """Summary in a few lines, for a log; the last one is the sentence of what is missing."""
        counts = f'{len(self.loaded)} loaded, {len(self.resized)} resized'
        if self.inflated:
            counts += f', {len(self.inflated)} inflated'
        lines = [f'{self.source} ({self.format}): {counts}']
        for name in ('resized', 'inflated'):
            if changed := getattr(self, name):
                lines.append(f'  {name}: ' + some([f'{key} {how}' for key, how in changed.items()]))
        for reason in dict.fromkeys(self.skipped.values()):
            lines.append(f'  skipped, {reason}: ' + some([key for key, why in self.skipped.items() if why == reason]))
        for name in ('missing', 'unexpected'):
            if getattr(self, name):
                lines.append(f'  {name}: ' + some(getattr(self, name)))
        lines += [f'  note: {note}' for note in self.notes]
        if self.summary:
            lines.append(self.summary)
        return '\n'.join(lines)


def load_checkpoint(
    model: nn.Module,
    path: str | Path,
    prefix: str | None = None,
    strict: bool = False,
    allow_missing: Missing = (),
) -> LoadReport:
    """Load a checkpoint of any known format into a model.

    Tensors of other shapes are fitted by :func:`~florence_mm.models.checkpoints.fitting.fit_state_dict`.

    Args:
        model: where the tensors go.
        path: a file or a URL, see :func:`~florence_mm.models.checkpoints.reading.read_checkpoint`.
        prefix: load only keys that begin with it (under our names), and remove it from them. For example
            ``'image_encoder.'`` for the backbone of a pretrained two-tower model.
        strict: raise unless all keys of the model and of the checkpoint are loaded.
        allow_missing: parts of the model that the checkpoint may lack, as ``['text_encoder']``, or True for any; see
            :func:`~florence_mm.models.checkpoints.coverage.check_coverage`.

    Returns:
        the report of all keys, which is also logged.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is unreadable; no key matches, or with ``strict`` some key does not; too little of the
            model would be loaded; a setting of the model is not that of the format; or values are not finite.
    """
    state, meta = read_checkpoint(path, mmap=True)
    return load_tensors(model, state, path, prefix, strict, allow_missing, meta)


def load_tensors(
    model: nn.Module,
    state: StateDict,
    path: str | Path,
    prefix: str | None = None,
    strict: bool = False,
    allow_missing: Missing = (),
    meta: Mapping[str, Any] | None = None,
) -> LoadReport:
    """Load tensors that were already read from a checkpoint, as :func:`load_checkpoint` does.

    Args:
        model: where the tensors go.
        state: tensors by key, under the names of the file.
        path: the file they were read from, for the report and messages.
        prefix: load only keys that begin with it (under our names), and remove it from them.
        strict: raise unless all keys of the model and of the checkpoint are loaded.
        allow_missing: parts of the model that the checkpoint may lack.
        meta: the checkpoint's metadata, which tells settings.

    Raises:
        ValueError: as for :func:`load_checkpoint`.
    """
    source = Source(path, set(state), meta or {})
    state, skipped = without_computed(state)
    found = find_format(state, meta)
    name = found.name if found else 'unknown format'
    if found:
        state, skipped = converted(found, state, skipped, path)
    report = LoadReport(str(path), name, skipped=skipped)
    if prefix:
        prefix = prefix.rstrip('.') + '.'
        report.skipped.update({key: f'not under {prefix}' for key in state if not key.startswith(prefix)})
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if not state:
            raise ValueError(
                f'{path} ({name}) has no keys under {prefix!r}{left_out_sentence(skipped)}; they begin with '
                f'{_first_parts(report.skipped)}'
            )

    own = model.state_dict()
    for leave_out in (fit_classifier, partial(drop_other_tower, model=type(model).__name__), fit_text_modes):
        state, left_out = leave_out(state, own)
        report.skipped.update(left_out)
    origin = FORMATS.get(str(source.meta.get('converted_from')), found)
    fitting = fit_state_dict(model, state, origin.more_rows if origin else None)
    if not fitting.tensors:
        raise ValueError(
            f'nothing in {path} ({name}) matches {type(model).__name__}{left_out_sentence(report.skipped)}: its keys '
            f'begin with {_first_parts(state)}, the model has {_first_parts(own)}{_suggest_prefix(state, own)}'
        )
    report.skipped.update(_drop_lone_projections(fitting.tensors, own))
    report.resized, report.inflated = fitting.resized, fitting.inflated
    report.loaded = [key for key in fitting.tensors if key not in fitting.resized and key not in fitting.inflated]
    report.unexpected = [key for key in state if key not in own]
    for key in fitting.unfit:
        shapes = f'{tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model'
        report.skipped[key] = f'of another shape ({shapes})'
    report.missing = [key for key in own if key not in fitting.tensors]
    check_types(model, fitting.tensors, path)
    check_values(fitting.tensors, path)
    wrong = report.missing + report.unexpected + [key for key in report.skipped if key in own]
    if strict and wrong:
        raise ValueError(f'{path} does not fit {type(model).__name__} exactly: {some(wrong)}')
    if found:
        report.notes = _check_format(found, model, report, fitting.tensors, source)
    check_coverage(own, fitting.tensors, type(model).__name__, path, allow_missing, skipped=report.skipped)
    report.summary = missing_sentence(own, fitting.tensors, type(model).__name__, path, report.unexpected)
    model.load_state_dict(fitting.tensors, strict=False)
    print_log(f'Checkpoint {report}', 'current', logging.WARNING if report.missing or report.notes else logging.INFO)
    return report


def _drop_lone_projections(tensors: StateDict, own: Iterable[str]) -> dict[str, str]:
    """Remove projections of towers of which no tensor fits: they belong to another encoder; returns them."""
    dropped = {}
    for part in ('image', 'text'):
        encoder, projection = f'{part}_encoder.', f'{part}_projection'
        has, gets = (any(key.startswith(encoder) for key in keys) for keys in (own, tensors))
        if projection in tensors and has and not gets:
            dropped[projection] = f'of the {part} encoder, which is not in the file or another one'
            del tensors[projection]
    return dropped


def _check_format(
    found: Format, model: nn.Module, report: LoadReport, loaded: Container[str], source: Source
) -> list[str]:
    """Check what the format says of the model; returns a note for each setting that the file leaves open."""
    for key, why in report.skipped.items():
        for pattern, argument in found.fixed_shapes.items():
            if why.startswith('of another shape') and re.search(pattern, key):
                raise ValueError(f'{source.path} ({found.name}) has {key} {why}; set {argument}')
    for key in report.unexpected:
        for pattern, argument in found.optional_parts.items():
            if re.search(pattern, key):
                raise ValueError(
                    f'{source.path} ({found.name}) has {key}, which {type(model).__name__} lacks, so that it gives '
                    f'other features; set {argument}'
                )
    return check_origin(model, loaded, source, found)


def check_origin(model: nn.Module, loaded: Container[str], source: Source, found: Format | None = None) -> list[str]:
    """Check the settings of a model against the format that a file came from, also after a conversion to our names.

    Args:
        model: the model, whose weights may be loaded already.
        loaded: its keys that the file gives.
        source: the file.
        found: the format of its keys; None if they are the model's own.

    Returns:
        a note for each setting that the file leaves open.

    Raises:
        ValueError: the model has a setting that cannot be right.
    """
    origin = FORMATS.get(str(source.meta.get('converted_from')), found)
    if origin is None or origin.settings is None:
        return []
    return check_settings(_narrowed(origin.settings(source), source), model, loaded, source.path, origin.name)


def _narrowed(settings: Iterable[Setting], source: Source) -> Iterator[Setting]:
    """Settings of a format, each with the one right value where a conversion has kept it in the file."""
    kept = source.meta.get('settings')
    kept = kept if isinstance(kept, dict) else {}
    for setting in settings:
        yield replace(setting, accepted=(kept[setting.argument],)) if setting.argument in kept else setting


def _first_parts(keys: Iterable[str]) -> str:
    """List the first parts of dotted keys, for a message."""
    return ', '.join(map(repr, first_parts(keys)[:5])) or 'nothing'


def _suggest_prefix(state: Iterable[str], own: Iterable[str]) -> str:
    """Say under which prefix the model's tensors, or those of a part of it, are in the file."""
    parts = dict.fromkeys(['', *(key.partition('.')[0] for key in own if '.' in key)])
    for part in parts:
        names = {key[len(part) + 1 :] if part else key for key in own if not part or key.startswith(f'{part}.')}
        for key in state:
            for at in (i for i, letter in enumerate(key) if letter == '.'):
                if key[at + 1 :] in names and ('.' in key[at + 1 :] or not part):
                    prefix = f'prefix={key[: at + 1]!r}'
                    return f'; did you mean {prefix}?' if not part else _of_part(part, prefix)
    return ''


def _of_part(part: str, prefix: str) -> str:
    how = f"{part}=dict(init_cfg=dict(type='florence_mm.Pretrained', checkpoint=..., {prefix}))"
    return f'; it holds tensors of {part} alone, which {how} loads for training'


@WEIGHT_INITIALIZERS.register_module('Pretrained')
class PretrainedInit:
    """Initialise a module from a checkpoint: ``init_cfg=dict(type='florence_mm.Pretrained', checkpoint=...)``.

    Works in configs of all OpenMMLab packages, and with all formats of :func:`load_checkpoint`. Keys of the checkpoint
    take precedence over the ``init_cfg`` of child modules, which initialise only the parameters that it lacks.

    Args:
        checkpoint: a file or a URL.
        prefix: part of the checkpoint to load, for example ``'image_encoder.'``, see :func:`load_checkpoint`.
        strict: raise unless all keys of the module and of the checkpoint are loaded.
        allow_missing: parts of the module that the checkpoint may lack, as ``['text_encoder']``, or True for any; heads
            always may, see :func:`~florence_mm.models.checkpoints.coverage.check_coverage`.
    """

    def __init__(
        self, checkpoint: str, prefix: str | None = None, strict: bool = False, allow_missing: Missing = ()
    ) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.strict = strict
        self.allow_missing = allow_missing

    def __call__(self, module: nn.Module) -> None:
        """Load the checkpoint into ``module``."""
        if hasattr(module, '_params_init_info'):  # called by init_weights
            # which initialises child modules after their parent, except after mmengine's own 'Pretrained'
            for child in module.children():
                if hasattr(child, 'init_weights') and not getattr(child, 'is_init', False):
                    child.init_weights()
        report = load_checkpoint(module, self.checkpoint, self.prefix, self.strict, self.allow_missing)
        # mmengine records how each parameter was initialised
        for name, parameter in module.named_parameters():
            if hasattr(module, '_params_init_info') and parameter in module._params_init_info:
                found = (report.loaded, report.resized, report.inflated)
                came = 'loaded' if any(name in keys for keys in found) else 'not'
                module._params_init_info[parameter]['init_info'] = f'{came} from {self.checkpoint}'
