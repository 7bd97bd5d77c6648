"""Overrides of a config: command-line options and the ``smoke`` section."""

import re
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from florence_mm.errors import UsageError

from .image_size import set_image_size
from .pick import step_index

_NUMBER = re.compile(r'-?[0-9]+')


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
        cfg.merge_from_dict({'.'.join(parts): _with_indices(value, node)})


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
