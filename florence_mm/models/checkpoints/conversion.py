"""Conversion of whole checkpoint files, between public layouts and ours in either direction."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from florence_mm.errors import UsageError
from florence_mm.utils.files import refuse_overwriting, write_atomic
from florence_mm.version import __version__

from .contents import check_values, check_whole_file, some
from .exporting import CONFIG, EXPORTS, Export, export_state_dict, exports_that_fit, find_export, known_settings
from .formats import OURS, RUN, convert_state_dict, first_parts
from .reading import plain_meta, read_checkpoint
from .renaming import Source, StateDict
from .settings import read_config
from .sharded import weights_in
from .writing import write_pickled, write_safetensors

DTYPES = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16, 'float64': torch.float64}
#: Formats under our names, which are not converted into ours once more.
_OURS = (OURS, 'florence_mm METER', RUN)
_PICKLED = ('.pth', '.pt', '.bin', '.ckpt', '.pkl')
_SAFE = '.safetensors'


@dataclass
class ConversionReport:
    """What a conversion wrote.

    Attributes:
        found: the format of the source.
        target: the format of the output.
        files: the files that were written; the first holds the tensors.
        tensors: number of tensors in it.
        left_out: keys of the source that are not in the output -> the reason.
        absent: keys that the package of the output knows and the file lacks -> what becomes of them.
        notes: settings that were assumed, or that the source does not tell.
    """

    found: str
    target: str
    files: list[Path]
    tensors: int
    left_out: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Lines for a terminal."""
        lines = [
            f'left out, {reason}: ' + ', '.join(key for key, why in self.left_out.items() if why == reason)
            for reason in dict.fromkeys(self.left_out.values())
        ]
        lines += [f'not in the file, {why}: {key}' for key, why in self.absent.items()]
        return '\n'.join(lines + [f'note: {note}' for note in self.notes])


def convert_file(
    source: str | Path,
    out: str | Path,
    to: str | None = None,
    prefix: str = '',
    dtype: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> ConversionReport:
    """Convert a checkpoint of any known format to ours, or to any format that has an export.

    Args:
        source: a file or URL, a folder of transformers or open_clip, or the index of several files.
        out: the file to write: ``.safetensors``; for public formats also ``.pth``, ``.pt``, ``.bin`` or ``.ckpt``, with
            the tensors where the package expects them; for formats of transformers also a folder, which gets a
            ``config.json`` too.
        to: the format, or ``'florence_mm'``; default: ours. A file in ours needs it, unless ``prefix`` is given.
        prefix: part of the model to keep, such as ``'image_encoder'``, under our names.
        dtype: type of the floating-point tensors, a key of :data:`DTYPES`; default: as they are.
        settings: what is known of the model beside its tensors, by the argument's name; it counts more than what the
            file tells.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is unreadable or in an unknown format, or the target's format cannot hold it.
        UsageError: ``out`` is the source, has the wrong suffix, or has the config of another model; nothing is under
            ``prefix``; ``to`` is needed; or there is no such ``dtype``.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f'dtype is {dtype!r}; give one of {", ".join(DTYPES)}')
    export = None if to is None or to.lower() == OURS else find_export(to)
    target = _file_to_write(Path(out), export)
    refuse_overwriting(target, [source, _local(source)], 'the target')
    state, meta = read_checkpoint(source)
    check_whole_file(state, source)
    origin = Source(_local(source), set(state), meta)
    found, state, left_out = convert_state_dict(state, source, meta)
    if to is None and found in _OURS and not prefix:
        raise UsageError(
            f'{source} is in our layout already ({found}); say with --to what to convert it to: '
            f'{exports_that_fit(state)}; or --to {OURS} to write it as it is'
        )
    state = _select(state, prefix, f'{source} ({found})')
    known = {**known_settings(origin, found), **_config_beside(origin, found), **(settings or {})}
    report = ConversionReport(found, OURS if export is None else export.name, [target], 0, left_out)
    config = None
    if export is not None:
        exported = export_state_dict(state, export.name, source, known)
        state, config = exported.tensors, exported.config
        report.left_out, report.absent, report.notes = left_out | exported.left_out, exported.absent, exported.notes
        if config is not None and target.parent == Path(out):
            _keep_config(target.with_name(CONFIG), export)
        elif config is not None:
            report.notes.append(f'{export.name} needs a config.json beside the file; give a folder to have it written')
    state = _cast(state, dtype, source)
    check_values(state, source)
    _write(target, state, _header(meta, found, known, export), export)
    report.tensors = len(state)
    if config is not None and target.parent == Path(out):
        report.files.append(target.with_name(CONFIG))
        write_atomic(report.files[-1], json.dumps(config, indent=2) + '\n')
    return report


def _file_to_write(out: Path, export: Export | None) -> Path:
    """The file that gets the tensors; for a folder, the one of the name that transformers looks for."""
    if out.suffix == _SAFE and not out.is_dir():
        return out
    if export is None:
        raise UsageError(f'{out} must end in {_SAFE}')
    if out.suffix in _PICKLED and not out.is_dir():
        return out
    if export.model_types and (out.is_dir() or not out.suffix):
        return out / 'model.safetensors'
    folder = ', or be a folder' if export.model_types else ''
    raise UsageError(f'{out} must end in {_SAFE} or {", ".join(_PICKLED)}{folder}, to be written as {export.name!r}')


def _keep_config(file: Path, export: Export) -> None:
    """Check that no config of another model would be written over."""
    if file.exists() and read_config(file).get('model_type') not in export.model_types:
        raise UsageError(f'{file} is the config of something else, which would be lost; give another folder')


def _local(source: str | Path) -> Path | str:
    """The file of the weights, also in a folder."""
    return source if '://' in str(source) else weights_in(source)


def _select(state: StateDict, prefix: str, name: str) -> StateDict:
    prefix = f'{prefix.rstrip(".")}.' if prefix else ''
    kept = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not kept:
        raise UsageError(f'{name} has no keys under {prefix!r}; they begin with {", ".join(first_parts(state))}')
    return kept


def _config_beside(source: Source, found: str) -> dict[str, Any]:
    """The ``config.json`` beside a file of a format that has one."""
    if '://' in str(source.path) or found not in EXPORTS or not EXPORTS[found].model_types:
        return {}
    config = read_config(Path(source.path).with_name(CONFIG))
    return {CONFIG: config} if config.get('model_type') in EXPORTS[found].model_types else {}


def _cast(state: StateDict, dtype: str | None, source: str | Path) -> StateDict:
    if dtype is None:
        return state
    check_values(state, source)
    large = []
    for key, value in state.items():  # in place, so that no second copy of all is made
        if value.is_floating_point():
            state[key] = value.to(DTYPES[dtype])
            large += [key] * (not bool(torch.isfinite(state[key]).all()))
    if large:
        raise UsageError(f'{source} has values in {some(large)} that are too large for {dtype}; give another --dtype')
    return state


def _header(meta: Mapping[str, Any], found: str, known: Mapping[str, Any], export: Export | None) -> dict[str, Any]:
    """Metadata of the output: that of the source, the format it came from and its settings."""
    header = {'converted_from': found, **plain_meta(dict(meta)), 'settings': dict(known)}
    if export is None:
        return {**header, 'florence_mm_version': __version__}
    header.pop('florence_mm_version', None)
    return header


def _write(target: Path, state: StateDict, header: dict[str, Any], export: Export | None) -> None:
    if target.suffix == _SAFE:
        write_safetensors(target, state, header)
        return
    write_pickled(target, state, export and export.wrapper, header)
