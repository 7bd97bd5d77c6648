"""Overrides of a config: command-line options and the ``smoke`` section."""

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

from mmengine.config import Config

from florence_mm.errors import UsageError
from florence_mm.utils.nearest import near_or_all, nearest

from .image_size import set_image_size
from .keys import RUNNER_KEYS
from .pick import step_index

_NUMBER = re.compile(r'-?[0-9]+')


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Check command-line overrides for misspelt keys, which would create new ones.

    Args:
        cfg (Config): The config without the overrides.
        options (dict): Dotted keys and values from ``--cfg-options``.

    Raises:
        UsageError: the first part of a key is neither in the config nor a key of the runner, a later part is new and
            similar to an existing key or is inside a value without keys, or a list has no item of that type or index.
    """
    for key in options:
        node: Any = cfg._cfg_dict
        parts = key.split('.')
        for position, part in enumerate(parts):
            if isinstance(node, (list, tuple)):
                try:
                    _, node = member(node, part)
                except UsageError as error:
                    raise UsageError(f'--cfg-options {key}: {error}') from error
                continue
            if not isinstance(node, Mapping):
                place = '.'.join(parts[:position])
                raise UsageError(
                    f'--cfg-options {key}: {place} is {node!r} and has no keys; give {place} a new value as a whole'
                )
            if part in node:
                node = node[part]
                continue
            known = set(node) | (RUNNER_KEYS if position == 0 else set())
            near = nearest(part, known)
            if part not in known and (position == 0 or (near and 'type' not in node)):
                place = '.'.join(parts[:position]) or 'the config'
                raise UsageError(f'--cfg-options {key}: {place} has no key {part!r}{near_or_all(part, known)}')
            break


def merge_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Apply overrides to a config in place, like ``Config.merge_from_dict``, with two additions.

    An item of a list is named by its type, ``train_dataloader.dataset.pipeline.Resize.scale``, or by its index. And if
    the config has ``image_size`` as an integer, overriding it first changes the sizes in pipelines too
    (:func:`~florence_mm.config.image_size.set_image_size`).

    Args:
        cfg (Config): The config.
        options (dict): Dotted keys and values; dicts are merged.

    Raises:
        UsageError: a list has no item of a type, or several, or an item would be replaced as a whole.

    >>> cfg = Config(dict(image_size=224, pipeline=[dict(type='Load'), dict(type='mmcv.Resize', scale=224)]))
    >>> merge_options(cfg, {'image_size': 32, 'pipeline.Resize.backend': 'pillow'})
    >>> cfg.pipeline
    [{'type': 'Load'}, {'type': 'mmcv.Resize', 'scale': 32, 'backend': 'pillow'}]
    """
    options = dict(options)
    if isinstance(cfg.get('image_size'), int) and 'image_size' in options:
        set_image_size(cfg, options.pop('image_size'))
    for key, value in options.items():
        parts: list[str] = []
        holder: Any = None
        node: Any = cfg._cfg_dict
        for part in key.split('.'):
            holder = node
            number, node = member(node, part)
            parts.append(number)
        if isinstance(holder, (list, tuple)) and not (isinstance(node, Mapping) and isinstance(value, Mapping)):
            raise UsageError(
                f'{key} would replace an item of a list, {node!r}, by {value!r}; give the whole list, or a key of the '
                'item'
            )
        try:
            cfg.merge_from_dict({'.'.join(parts): _with_indices(value, node)})
        except TypeError as error:  # mmengine's, for a dict that would replace a value of another type
            raise UsageError(
                f'{key} is {node!r} and cannot be merged with {value!r}; to replace it as a whole, add _delete_=True'
            ) from error


def section(cfg: Config, key: str) -> MutableMapping:
    """Return a dict of a config for changing it; an empty one is put in if there is none.

    ``cfg.setdefault(key, {})`` returns a dict of which the config holds a copy.

    Raises:
        UsageError: the key has another value.

    >>> cfg = Config()
    >>> section(cfg, 'randomness')['seed'] = 3
    >>> cfg.randomness
    {'seed': 3}
    """
    if cfg.get(key) is None:
        cfg[key] = {}
    if not isinstance(cfg[key], MutableMapping):
        raise UsageError(f'{key} is {cfg[key]!r}; expected a dict')
    return cfg[key]


def member(node: Any, key: str) -> tuple[str, Any]:
    """Resolve one part of a dotted key: a type in a list becomes its index, as mmengine needs.

    Returns:
        tuple[str, Any]: The resolved part, and its value, None if the key does not exist yet.

    Raises:
        UsageError: a list has no item of the type or with the index, or several of the type.
    """
    if isinstance(node, (list, tuple)):
        index = int(key) if _NUMBER.fullmatch(key) else step_index(node, key)
        if not -len(node) <= index < len(node):
            raise UsageError(f'{key!r} is no index of a list of {len(node)}')
        return str(index % len(node)), node[index]
    return key, node.get(key) if isinstance(node, Mapping) else None


def _with_indices(value: Any, node: Any) -> Any:
    """Replace types by indices in a dict that will be merged into ``node``."""
    if not isinstance(value, Mapping) or not isinstance(node, (Mapping, list, tuple)):
        return value
    members = {key: member(node, key) for key in value}
    return {members[key][0]: _with_indices(value[key], members[key][1]) for key in value}
