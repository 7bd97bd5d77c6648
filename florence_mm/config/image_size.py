"""The variable ``image_size`` of configs, and a function that changes it together with the sizes in pipelines.

A base sets ``image_size = 224`` and uses it in its pipelines. mmengine evaluates a base before the file that inherits
from it, so that ``image_size = 384`` in that file would not change the pipelines. Write instead::

    _base_ = 'florence_mm::unicl/unicl_coswin-t_8xb512-32e_in21k-yfcc14m.py'
    from florence_mm.config.image_size import set_image_size

    set_image_size(_base_, 384)
"""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from mmengine.config import Config

from florence_mm.errors import UsageError
from florence_mm.utils.numbers import is_whole

from .pick import walk_steps

#: Arguments of transforms that are sizes in pixels if all their numbers are integers.
_SIZES = ('scale', 'scales', 'size', 'crop_size', 'input_size')


def set_image_size(cfg: Config | MutableMapping, size: int) -> None:
    """Set ``image_size`` of a config, and scale all sizes in pixels in its pipelines proportionally, in place.

    Values are rounded towards the old size: 256 before a crop of 224 becomes 438 before one of 384, and 256 again when
    changed back. -1, a side that follows from the other, stays.

    Args:
        cfg (Config or dict): A config with ``image_size``, the side of its square images in pixels; in a config file,
            ``_base_``.
        size (int): The new side.

    Raises:
        UsageError: the config has no integer ``image_size`` or no size to change, or a transform has the old size in an
            argument that is not known to be a size.

    >>> test_pipeline = [dict(type='ResizeEdge', scale=256), dict(type='CenterCrop', crop_size=224)]
    >>> cfg = dict(image_size=224, test_dataloader=dict(dataset=dict(pipeline=test_pipeline)))
    >>> set_image_size(cfg, 384)
    >>> cfg['image_size'], test_pipeline
    (384, [{'type': 'ResizeEdge', 'scale': 438}, {'type': 'CenterCrop', 'crop_size': 384}])
    """
    cfg = cfg._cfg_dict if isinstance(cfg, Config) else cfg
    old = cfg.get('image_size')
    if not is_whole(old) or not is_whole(size) or min(old, size) <= 0:
        raise UsageError(
            f'set_image_size needs two sides in pixels, not {old!r}, which the config has as image_size, and {size!r}; '
            'without an image_size of its own change its steps with florence_mm.config.pick'
        )
    sizes = ', '.join(_SIZES)
    found = False
    for step in _transforms(cfg):
        for key, value in step.items():
            if key in _SIZES and _is_pixels(value):
                step[key] = _in_proportion(value, size, old)
                found = True
            elif _is_pixels(value) and old in _numbers(value):
                raise UsageError(
                    f'{step["type"]} has the image_size {old} in {key}={value!r}, which is not known to be a size '
                    f'({sizes} are); change that step with florence_mm.config.pick first'
                )
    if not found:
        raise UsageError(f'no transform of the config has a size that could follow image_size ({sizes})')
    cfg['image_size'] = size


def image_size_problem(cfg: Mapping) -> str | None:
    """Return an error message if ``image_size`` of a config occurs in none of its pipelines, else None."""
    size = cfg.get('image_size')
    values = [step.get(key) for step in _transforms(cfg) for key in _SIZES]
    there = {number for value in values if _is_pixels(value) for number in _numbers(value) if number > 0}
    if not is_whole(size) or not there or size in there:
        return None
    return (
        f'image_size: no transform of a pipeline has the size {size}, they have {", ".join(map(str, sorted(there)))}; '
        f'write set_image_size(_base_, {size}) (florence_mm.config.image_size), which changes them, in its place'
    )


def _transforms(cfg: Mapping) -> list[MutableMapping]:
    """Steps of all pipelines; one object at several places is listed once."""
    return list({id(step): step for pipeline in _pipelines(cfg) for step in walk_steps(pipeline)}.values())


def _pipelines(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if str(key) == 'pipeline' or str(key).endswith('_pipeline'):
                yield value
            else:
                yield from _pipelines(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _pipelines(value)


def _is_pixels(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_pixels(item) for item in value)
    return is_whole(value)


def _numbers(value: Any) -> set[int]:
    return set().union(*map(_numbers, value)) if isinstance(value, (list, tuple)) else {value}


def _in_proportion(value: Any, new: int, old: int) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_in_proportion(item, new, old) for item in value)
    if value <= 0:
        return value
    # towards the old size: down if sizes grow, up if they shrink
    return value * new // old if new > old else -(-value * new // old)
