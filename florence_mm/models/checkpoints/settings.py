"""Settings that belong to a checkpoint format: they change a model's output, and no tensor's shape tells of them.

The activation and the epsilon of the norms of CLIP's text towers are such settings, or the offsets of Dynamic Head. A
format states them with :func:`~florence_mm.models.checkpoints.renaming.register_format`; when its weights are loaded,
the model's own are compared with them.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Setting:
    """A setting that the weights of a format need.

    Attributes:
        argument: name of the argument that sets it, for messages.
        modules: regular expression of the paths of the modules that have it, under our names.
        read: function that reads it from such a module; None if the module lacks it.
        accepted: right values. With several, the file does not tell which of them is right, and the report says so;
            of an export none, if any is right, as the output tells it.
        advice: which value belongs to which files.
    """

    argument: str
    modules: str
    read: Callable[[nn.Module], Any]
    accepted: tuple
    advice: str = ''


def read_settings(settings: Iterable[Setting], model: nn.Module) -> dict[str, Any]:
    """Read settings from a model, by argument; those that it lacks are left out."""
    found = {}
    for setting in settings:
        values = (setting.read(module) for path, module in model.named_modules() if re.search(setting.modules, path))
        if (value := next((value for value in values if value is not None), None)) is not None:
            found[setting.argument] = value
    return found


def check_settings(
    settings: Iterable[Setting], model: nn.Module, loaded: Collection[str], source: str | Path, format_name: str
) -> list[str]:
    """Compare the settings of a model with those that the loaded weights need.

    Args:
        settings: those of the format.
        model: the model.
        loaded: keys of the model that the checkpoint gives; modules of which it gives no tensor are not checked.
        source: the file, for messages.
        format_name: the format, for messages.

    Returns:
        a note for each setting that the file leaves open.

    Raises:
        ValueError: the model has a value that cannot be right.
    """
    owners = {''} | {key[:at] for key in loaded for at, letter in enumerate(key) if letter == '.'}
    wrong, notes, advices = {}, [], []
    for setting in settings:
        values = {}
        for path, module in model.named_modules():
            # a module without tensors, such as an activation, belongs to those beside it
            beside = path.rpartition('.')[0] in owners and next(module.parameters(), None) is None
            near = path in owners or beside
            if near and re.search(setting.modules, path) and (value := setting.read(module)) is not None:
                values.setdefault(value, path)
        unfit = {value: path for value, path in values.items() if value not in setting.accepted}
        if unfit:
            wrong[setting.argument] = (*next(iter(unfit.items())), setting.accepted)
        if values and setting.advice and (unfit or len(setting.accepted) > 1):
            advices.append(f'{setting.argument}: {setting.advice}')
        if values and not unfit and len(setting.accepted) > 1:
            notes.append(
                f'the file does not tell {setting.argument}, which is {next(iter(values))!r}: {setting.advice}'
            )
    if wrong:
        needs = ', '.join(f'{name}={" or ".join(map(repr, right))}' for name, (_, _, right) in wrong.items())
        has = ', '.join(
            f'{name}={value!r}' + (f' ({path})' if path else '') for name, (value, path, _) in wrong.items()
        )
        advice = f'; {"; ".join(advices)}' if advices else ''
        raise ValueError(
            f'weights in {source} ({format_name}) need {needs} and {type(model).__name__} has {has}, with which they '
            f'give other features; set it in the config{advice}'
        )
    return notes


def read_config(file: Path) -> dict[str, Any]:
    """Read a config file beside weights, an object of JSON; empty if it is missing or holds something else.

    Raises:
        ValueError: it is damaged, so that settings which no tensor tells are lost.
    """
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except OSError:
        return {}
    except (ValueError, RecursionError):
        raise ValueError(f'{file} is not JSON; download it again, or give the weights from another folder') from None
    return content if isinstance(content, dict) else {}
