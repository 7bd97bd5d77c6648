"""Pretrained weights that a model's config names."""

from typing import Any


def drop_pretrained(node: Any, path: str) -> list[str]:
    """Remove pretrained weights from a model's config, in place.

    Args:
        node: the config.
        path: its name, which the names that are returned begin with.

    Returns:
        name and checkpoint of each setting that was removed.
    """
    left_out = []
    if isinstance(node, (list, tuple)):
        for index, item in enumerate(node):
            left_out += drop_pretrained(item, f'{path}.{index}')
    elif isinstance(node, dict):
        for key in list(node):
            value = node[key]
            if key.endswith(('init_cfg', '_init')) and isinstance(value, dict) and value.get('checkpoint'):
                left_out.append(f'{path}.{key} ({value["checkpoint"]})')
                node[key] = None
            elif key == 'pretrained' and isinstance(value, str):
                left_out.append(f'{path}.{key} ({value})')
                node[key] = None
            else:
                left_out += drop_pretrained(value, f'{path}.{key}')
    return left_out
