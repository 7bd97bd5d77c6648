"""Names of classes that no registry has, and what may be meant."""

from florence_mm.utils.nearest import edit_distance, nearest

from .lookup import lookup, registered_names

_PACKAGES = ('florence_mm', 'mmdet', 'mmaction', 'mmpretrain')


def unknown_type(path: str, type_: str, registry: str | None, scope: str) -> str | None:
    """One sentence for a type that no registry has, with the name that may be meant; None where it may be a word.

    Args:
        path: place of the dict with this type in the config.
        type_: the type, which was looked up in vain.
        registry: registry of this place; None if unknown: there, ``type`` may be a word that its owner interprets
            (mmcv's nms), so that only a near miss of a class name is an error.
        scope: scope of the place.
    """
    word = type_.rsplit('.', 1)[-1]
    near = nearest(word, registered_names(registry or 'MODELS', type_, scope))
    near = near if near and near != word and one_slip(word.lower(), near.lower()) else None
    if registry is None and (not near or len(type_) <= 5 or type_.islower()):
        return None
    what = (registry or 'MODELS').lower().replace('_', ' ')
    problem = f'{path}.type: {type_!r} is not registered in {what}; '
    # more often the package was left out than another name was meant
    elsewhere = [
        f'{package}.{word}' for package in _PACKAGES if registry and lookup(registry, f'{package}.{word}', scope)
    ]
    if elsewhere:
        return f'{problem}did you mean {elsewhere[0]!r}?'
    prefix = f'{type_.rsplit(".", 1)[0]}.' if '.' in type_ else ''
    hint = f'did you mean {prefix + near!r}?' if near else 'check the name, or add its module to custom_imports'
    return problem + hint


def one_slip(name: str, near: str) -> bool:
    """Whether two names differ by one letter (two in long names)."""
    return edit_distance(name, near) <= (2 if len(near) >= 10 else 1)
