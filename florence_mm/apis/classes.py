"""Classes that an inferencer reports: those given to a zero-shot model, or chosen among fixed ones."""

from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from florence_mm.errors import UsageError
from florence_mm.models.protocol import ZeroShotModel
from florence_mm.utils.nearest import nearest


def parse_class_names(classes: str | Sequence[str]) -> list[str]:
    """Split class names at commas, strip them and drop repetitions; a list of names is only cleaned.

    Raises:
        UsageError: there is no name.
    """
    names = classes.split(',') if isinstance(classes, str) else classes
    if isinstance(names, Mapping) or not isinstance(names, Iterable) or not all(isinstance(n, str) for n in names):
        raise UsageError(f'classes={classes!r} must be names with commas between, or a list of names')
    names = list(dict.fromkeys(' '.join(name.split()) for name in names if name.strip()))
    if not names:
        raise UsageError(f'classes={classes!r} has no class name; give names with commas between, as in "cat, dog"')
    return names


def choose_classes(
    model: nn.Module, known: list[str], classes: str | Sequence[str] | None, templates: str | Sequence[str] | None
) -> tuple[list[str], list[str] | None]:
    """Set the classes of a zero-shot model, or choose those of a model with fixed classes to report.

    Args:
        model: the model.
        known: names of the labels of a model with fixed classes.
        classes: the requested classes, see :func:`parse_class_names`; None: all.
        templates: prompt templates for a zero-shot model; None: the model's.

    Returns:
        the name of each label, and the names to report, None for all.

    Raises:
        UsageError: a zero-shot model has no classes, or a model with fixed classes lacks one or got templates.
    """
    if isinstance(model, ZeroShotModel):
        if classes is not None or templates is not None and model.class_names:
            model.set_classes(parse_class_names(list(model.class_names) if classes is None else classes), templates)
        names = list(model.class_names)
        if not names:
            raise UsageError('a zero-shot model needs class names; give some, as in classes="cat, dog, bench"')
        return names, None
    if templates is not None:
        raise UsageError(
            f'templates={templates!r} are for the prompts of a zero-shot model, and this one has fixed classes; leave '
            'them out'
        )
    if classes is None:
        return known, None
    wanted = parse_class_names(classes)
    for name in wanted:
        if name not in known:
            near = nearest(name, known)
            hint = f'did you mean {near!r}?' if near else f'it has {", ".join(known[:20]) or "no names for them"}'
            raise UsageError(f'this model has fixed classes and {name!r} is none of them; {hint}')
    return known, wanted


def best_classes(
    scores: Sequence[float], names: Sequence[str], reported: Sequence[str] | None, top: int
) -> dict[str, list]:
    """Choose the classes to report of one input.

    Args:
        scores: a score for each class.
        names: name of each class; empty: they are unknown, and numbers are reported.
        reported: names of the classes to choose among; None: all.
        top: most classes reported.

    Returns:
        ``labels``, best first and of equal ones in the order of the classes, and ``scores``, to four decimals.

    Raises:
        UsageError: the model has another number of classes than names.
    """
    if names and len(names) != len(scores):
        raise UsageError(f'there are {len(names)} class names, but the model has {len(scores)} classes')
    keep = [i for i in range(len(scores)) if reported is None or names[i] in reported]
    order = sorted(keep, key=lambda i: -scores[i])[:top]
    return {
        'labels': [class_name(i, names) for i in order],
        'scores': [round(scores[i], 4) for i in order],
    }


def class_name(label: int, names: Sequence[str]) -> str:
    """Name of a class; its number if no names are known."""
    return names[label] if names else str(label)
