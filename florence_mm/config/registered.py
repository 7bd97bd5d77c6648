"""Check that a config from elsewhere names registered classes alone.

Mmengine builds whatever a dotted name leads to, ``os.system`` too: a config is code. What somebody else has written may
only name what a package of OpenMMLab has registered.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.registry import Registry

from florence_mm import registry
from florence_mm.errors import UsageError, shown

_SCOPES = ('florence_mm', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mmaction')


def require_registered(value: Any, where: str) -> None:
    """Check that each ``type`` in a part of a config is that of a registered class; nothing is built.

    Args:
        value: the part.
        where: its file, for the message.

    Raises:
        UsageError: one is not.
    """
    if isinstance(value, Mapping):
        name = value.get('type')
        if isinstance(name, str) and '.' in name and not _is_registered(name):
            raise UsageError(
                f'{where} has type={shown(name)}, which is no registered class and could run any code; look at the '
                'file, and do not use it if you do not know who wrote it'
            )
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for part in value:
        require_registered(part, where)


def _is_registered(name: str) -> bool:
    scope = name.partition('.')[0]
    if scope not in _SCOPES:
        return False
    own = [value for value in vars(registry).values() if isinstance(value, Registry)]
    return any(_holds(one, _found(one, name)) for one in own)


def _found(own: Registry, name: str) -> Any:
    try:
        return own.get(name)
    except ImportError:  # the package has nothing of this registry's kind
        return None


def _holds(own: Registry, found: Any) -> bool:
    root = own
    while root.parent is not None:
        root = root.parent
    return found is not None and any(found is known for known in _all(root))


def _all(one: Registry) -> Iterator[Any]:
    yield from one.module_dict.values()
    for child in one.children.values():
        yield from _all(child)
