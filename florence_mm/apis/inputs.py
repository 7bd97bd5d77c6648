"""What inferencers are given: files and folders, class names, and a folder for what they write."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from florence_mm.errors import UsageError
from florence_mm.models.protocol import ZeroShotModel
from florence_mm.utils.nearest import nearest


def list_inputs(inputs: Any, suffixes: Sequence[str], what: str, memory: type | tuple[type, ...] = ()) -> list:
    """Files and folders, or a list of them, as a list of files.

    Args:
        inputs: paths; things of the types ``memory`` stay as they are.
        suffixes: of the files that a folder's are looked for by, in the folders inside it too.
        what: what messages call them, as in "pictures".
        memory: types of inputs that are no paths.

    Raises:
        UsageError: a folder without such files, or nothing at all.
    """
    if isinstance(inputs, (str, Path)) or memory and isinstance(inputs, memory):
        inputs = [inputs]
    found: list = []
    for item in inputs:
        if memory and isinstance(item, memory) or not Path(item).is_dir():
            found.append(item)
            continue
        inside = sorted(path for path in Path(item).rglob('*') if path.suffix.lower() in suffixes)
        if not inside:
            raise UsageError(f'the folder {item} has no {what} ({", ".join(suffixes)}); check the path')
        found += inside
    if not found:
        raise UsageError(f'no {what} were given; give files or folders')
    return found


def keep_originals(files: Sequence[str | Path], out_dir: str | Path) -> None:
    """Refuse an output folder in which one of the input files lies.

    Raises:
        UsageError: one does; what is written could take its place.
    """
    for file in files:
        if Path(file).resolve().parent == Path(out_dir).resolve():
            raise UsageError(
                f'{file} lies in the output folder, where what is written could take its place; '
                'give another output folder'
            )


def free_name(stem: str, suffix: str, taken: set[str]) -> str:
    """``stem + suffix``, with a number where another file of this call has the name; adds it to ``taken``."""
    name, number = f'{stem}{suffix}', 2
    while name in taken:
        name, number = f'{stem}_{number}{suffix}', number + 1
    taken.add(name)
    return name


def parse_class_names(classes: str | Sequence[str]) -> list[str]:
    """``'cat, dog,bench'``, or a list of names, as names without blanks around them, each once.

    Raises:
        UsageError: no name is left.
    """
    names = classes.split(',') if isinstance(classes, str) else classes
    names = list(dict.fromkeys(' '.join(name.split()) for name in names if name.strip()))
    if not names:
        raise UsageError(f'classes={classes!r} has no class name; give names with commas between, as in "cat, dog"')
    return names


def choose_classes(
    model: nn.Module, known: list[str], classes: str | Sequence[str] | None, templates: str | Sequence[str] | None
) -> tuple[list[str], list[str] | None]:
    """The name of each label, and the names to report where they are not all.

    Args:
        model: a zero-shot one (it has ``set_classes``) is told the classes.
        known: names of the labels of a model with fixed classes.
        classes: what the user asks for, see :func:`parse_class_names`; None: all.
        templates: prompts for a zero-shot model; None takes the model's.

    Raises:
        UsageError: a zero-shot model has no classes, or a model of fixed classes lacks one.
    """
    if isinstance(model, ZeroShotModel):
        if classes is not None:
            model.set_classes(parse_class_names(classes), templates)
        names = list(model.class_names)
        if not names:
            raise UsageError('a zero-shot model needs class names; give some, as in classes="cat, dog, bench"')
        return names, None
    if classes is None:
        return known, None
    wanted = parse_class_names(classes)
    for name in wanted:
        if name not in known:
            near = nearest(name, known)
            hint = f'did you mean {near!r}?' if near else f'it has {", ".join(known[:20]) or "no names for them"}'
            raise UsageError(f'this model has fixed classes and {name!r} is none of them; {hint}')
    return known, wanted
