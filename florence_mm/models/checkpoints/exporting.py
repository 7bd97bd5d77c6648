"""The way back: from our names to a public layout, so that the package of that layout loads the file.

An adapter file registers both directions of its format beside each other: :func:`register_format` into ours,
:func:`register_export` out of ours.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from florence_mm.utils.nearest import did_you_mean

from .classifiers import bare_backbone
from .formats import OURS, RUN, first_parts
from .renaming import FORMATS, Skipped, Source, StateDict, keep_matching
from .settings import Setting


@dataclass
class Exported:
    """Tensors in a public layout.

    Attributes:
        tensors: tensors under the names of the layout.
        left_out: our keys that the layout has no place for -> the reason.
        absent: keys of the layout, or beginnings of keys, that ours cannot give -> what becomes of them.
        config: the content of ``config.json`` for packages that build the model from it; None for others.
        notes: what the writer assumed and nothing in the source tells.
    """

    tensors: StateDict
    left_out: Skipped = field(default_factory=dict)
    absent: Skipped = field(default_factory=dict)
    config: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Export:
    """The way from our names to a public format.

    Attributes:
        name: name of the format, as in :data:`~florence_mm.models.checkpoints.renaming.FORMATS`.
        fits: function that tells whether our keys can be written in it.
        convert: function from our tensors and the settings that are known, by name, to the public ones. It raises a
            ValueError for what the layout cannot hold.
        wrapper: key under which the package expects the state dict in a ``.pth``; None: it is the whole content.
        settings: what the package computes whatever the weights are.
        model_types: for packages that load a folder with ``config.json``, its ``model_type`` for models of the format.
    """

    name: str
    fits: Callable[[set[str]], bool]
    convert: Callable[[StateDict, Mapping[str, Any]], Exported]
    wrapper: str | None = None
    settings: tuple[Setting, ...] = ()
    model_types: tuple[str, ...] = ()


#: Registered exports by the name of their format.
EXPORTS: dict[str, Export] = {}


def register_export(
    name: str,
    fits: Callable[[set[str]], bool],
    wrapper: str | None = None,
    settings: Iterable[Setting] = (),
    model_types: tuple[str, ...] = (),
) -> Callable:
    """Register the decorated function as the way from our names to a format; see :class:`Export`.

    Args:
        name: the format, which :func:`~florence_mm.models.checkpoints.renaming.register_format` registered.
        fits: function that tells whether our keys can be written in it.
        wrapper: key under which the package expects the state dict in a ``.pth``.
        settings: what the package computes whatever the weights are.
        model_types: ``model_type`` of its ``config.json``, if the package loads a folder with one.

    Raises:
        ValueError: there is no such format, or it has an export.
    """

    def register(convert: Callable[[StateDict, Mapping[str, Any]], Exported]) -> Callable:
        if name not in FORMATS or name in EXPORTS:
            why = 'has an export already' if name in EXPORTS else 'is not registered; register the format first'
            raise ValueError(f'the checkpoint format {name!r} {why}')
        EXPORTS[name] = Export(name, fits, convert, wrapper, tuple(settings), model_types)
        return convert

    return register


def find_export(name: str) -> Export:
    """Find an export by the name of its format; case is ignored, and spaces may be ``-`` or ``_``.

    Raises:
        ValueError: there is none of that name.
    """
    wanted = _plain(name)
    for known, export in EXPORTS.items():
        if _plain(known) == wanted:
            return export
    if found := next((known for known in FORMATS if _plain(known) == wanted), None):
        raise ValueError(f'the format {found!r} can be read and not written; written are {_listed(EXPORTS)}')
    near = did_you_mean(name, EXPORTS, f'; known are {OURS!r}, {_listed(EXPORTS)}')
    raise ValueError(f'there is no checkpoint format named {name!r}{near}')


def _plain(name: str) -> str:
    return re.sub(r'[\W_]+', ' ', name).strip().lower()


def _listed(names: Iterable[str]) -> str:
    return ', '.join(map(repr, sorted(names)))


def exports_that_fit(keys: Iterable[str]) -> str:
    """List the formats in which tensors of these names of ours can be written, also those of a part of the model."""
    keys = set(keys)
    found = [f'{_listed(names)}{how}' for how, names in _fitting(keys).items()]
    return '; '.join(found) if found else 'none but ours'


def _fitting(keys: set[str]) -> dict[str, list[str]]:
    """Formats by the option of the command that selects the part they hold."""
    parts = {'': keys}
    for part in first_parts(sorted(keys)):
        parts[f' with --prefix {part}'] = {key.removeprefix(f'{part}.') for key in keys if key.startswith(f'{part}.')}
    found: dict[str, list[str]] = {}
    for how, held in parts.items():
        known = found.get('', [])
        if names := [name for name, export in EXPORTS.items() if export.fits(held) and name not in known]:
            found[how] = names
    return found


def export_state_dict(
    state: StateDict, name: str, path: str | Path = 'the checkpoint', settings: Mapping[str, Any] | None = None
) -> Exported:
    """Convert tensors under our names to a public format.

    Args:
        state: tensors under our names, of the part of the model that the format holds.
        name: the format, see :func:`find_export`.
        path: the file they came from, for messages.
        settings: what is known of the model beside its tensors, see :func:`known_settings`. A format may need some of
            them for its ``config.json``, as ``num_heads``.

    Raises:
        ValueError: the format is unknown, the tensors do not fit it, or it cannot hold a part of them.
    """
    export = find_export(name)
    if not export.fits(set(state)):
        state = bare_backbone(state)
    if not export.fits(set(state)):
        raise ValueError(
            f'{path} does not fit {export.name!r}: its keys begin with {", ".join(first_parts(state)[:5])}, which can '
            f'be written as {exports_that_fit(state)}'
        )
    try:
        exported = export.convert(dict(state), settings or {})
    except ValueError as error:
        raise ValueError(f'{path} cannot be written as {export.name!r}: {error}') from None
    exported.notes += _compare(export, settings or {}, path)
    return exported


def _compare(export: Export, known: Mapping[str, Any], path: str | Path) -> list[str]:
    """Compare what is known of a model with what a package computes; returns notes on what is not known."""
    notes = []
    for setting in export.settings:
        if not setting.accepted:
            continue
        right = ' or '.join(map(repr, setting.accepted))
        if setting.argument not in known:
            notes.append(f'{export.name} computes with {setting.argument}={right}, and the file does not tell its own')
        elif known[setting.argument] not in setting.accepted:
            raise ValueError(
                f'{path} cannot be written as {export.name!r}: its weights need '
                f'{setting.argument}={known[setting.argument]!r}, and {export.name} computes with {right}'
            )
    return notes


def known_settings(source: Source, found: str) -> dict[str, Any]:
    """Settings that a file tells: those that a conversion to our names kept, and those of the format it came from.

    Args:
        source: the file.
        found: the format of its keys.

    Returns:
        the value by the argument's name; a setting that the file leaves open is not there.
    """
    origin = FORMATS.get(str(source.meta.get('converted_from')), FORMATS.get(found))
    kept = source.meta.get('settings')
    settings = origin.settings(source) if origin and origin.settings else ()
    known = {setting.argument: setting.accepted[0] for setting in settings if len(setting.accepted) == 1}
    return known | (kept if isinstance(kept, dict) else {})


def require(state: StateDict, *keys: str) -> None:
    """Check that tensors are there.

    Raises:
        ValueError: one is missing.
    """
    if missing := [key for key in keys if key not in state]:
        raise ValueError(f'it lacks {missing[0]}, so that it is not whole')


#: Name among the known settings of the ``config.json`` that lay beside a file before its conversion to our names.
CONFIG = 'config.json'


def config_json(known: Mapping[str, Any], fixed: Mapping[str, Any], assumed: Mapping[str, Any]) -> dict[str, Any]:
    """Make a ``config.json`` of transformers.

    Args:
        known: what is known of the model beside its tensors; the file's own config before, if any.
        fixed: what the tensors tell.
        assumed: what they do not, where the config before does not say it.
    """
    before = known.get(CONFIG)
    if not isinstance(before, dict) or before.get('model_type') != fixed['model_type']:
        before = {}
    return {**assumed, **before, **fixed}


def hold(state: StateDict, pattern: str, layout: str) -> tuple[StateDict, Skipped]:
    """Keep the tensors that a layout has a place for; returns them, and the other keys with the reason."""
    return keep_matching(state, pattern, f'{layout} has no place for it')


@register_export(RUN, lambda keys: bool(keys), wrapper='state_dict')
def export_run(state: StateDict, settings: Mapping[str, Any]) -> Exported:
    """Keep all names, in the file of a run, which every OpenMMLab package loads into a model of the same parts."""
    return Exported(state)
