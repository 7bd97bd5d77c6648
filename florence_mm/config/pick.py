"""Functions to find and change steps of an inherited pipeline by their type, for use in configs.

In a config file, after its ``_base_`` (a file that imports first is another style of config for mmengine)::

    _base_ = 'florence_mm::dynamic_head/atss_coswin-t_fpn_dyhead_8xb4-1x_coco.py'
    from florence_mm.config.pick import change_step

    test_pipeline = change_step(_base_.test_pipeline, 'Resize', scale=(2500, 1200))
    test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

``steps`` is a pipeline, or any other part of a config with dicts that have a ``type``: a list of hooks or schedulers, a
whole data loader. Steps inside wrappers (``RandomApply``, ``TestTimeAug``) are found too. Each function returns a
changed copy.

``which`` names one step by its type: ``'Resize'`` of any package, ``'mmcv.Resize'`` only mmcv's. If a type occurs
several times, add arguments: ``dict(type='Resize', keep_ratio=False)``. If there is no such step, or several, the
functions raise a :class:`UsageError` that lists the steps there are.
"""

import copy
from collections.abc import Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any, NamedTuple

from mmengine.config import ConfigDict

from florence_mm.errors import UsageError
from florence_mm.utils.nearest import did_you_mean

_MISSING = object()


class _Place(NamedTuple):
    step: MutableMapping
    #: the list or dict that has the step at ``key``
    holder: Any
    key: Any


def find_step(steps: Any, which: str | Mapping) -> Any:
    """Find a step by its type; returns the step itself, not a copy.

    >>> pipeline = [dict(type='LoadImage'), dict(type='mmcv.Resize', scale=(224, 224)), dict(type='PackImageText')]
    >>> find_step(pipeline, 'Resize')['scale']
    (224, 224)
    >>> find_step(pipeline, 'Resise')
    Traceback (most recent call last):
    florence_mm.errors.UsageError: no step 'Resise' among LoadImage, mmcv.Resize, PackImageText; did you mean 'Resize'?
    """
    return _one(list(_walk(steps)), which).step


def change_step(steps: Any, which: str | Mapping, /, **arguments: Any) -> Any:
    """Set arguments of a step; dicts are merged as between config files.

    >>> pipeline = [dict(type='mmcv.RandomApply', prob=0.3, transforms=[dict(type='mmcv.Resize', scale=224)])]
    >>> change_step(pipeline, 'Resize', scale=384)
    [{'type': 'mmcv.RandomApply', 'prob': 0.3, 'transforms': [{'type': 'mmcv.Resize', 'scale': 384}]}]
    """
    steps = copy.deepcopy(steps)
    step = find_step(steps, which)
    merged = ConfigDict(step)
    merged.merge(arguments)
    step.clear()
    step.update(merged)
    return steps


def replace_step(steps: Any, which: str | Mapping, new: Mapping, *more: Mapping) -> Any:
    """Replace a step by one or several steps.

    >>> replace_step([dict(type='LoadImage'), dict(type='Resize', scale=224)], 'Resize', dict(type='CenterCrop'))
    [{'type': 'LoadImage'}, {'type': 'CenterCrop'}]
    """
    steps = copy.deepcopy(steps)
    place = _one(list(_walk(steps)), which)
    if isinstance(place.holder, MutableMapping) and not more:
        place.holder[place.key] = new
    else:
        siblings, index = _in_list(place)
        siblings[index : index + 1] = [new, *more]
    return steps


def replace_steps(steps: Any, which: str | Mapping, new: Mapping, *more: Mapping) -> Any:
    """Replace all steps that ``which`` names, which must be consecutive in one list.

    For lists of alternatives, such as the sizes of ``TestTimeAug``:

    >>> sizes = [dict(type='Resize', scale=640), dict(type='Resize', scale=800)]
    >>> augment = [dict(type='TestTimeAug', transforms=[sizes, [dict(type='RandomFlip')]])]
    >>> replace_steps(augment, 'Resize', dict(type='Resize', scale=1200))[0]['transforms']
    [[{'type': 'Resize', 'scale': 1200}], [{'type': 'RandomFlip'}]]
    """
    steps = copy.deepcopy(steps)
    places = _select(list(_walk(steps)), which)
    siblings, first = _in_list(places[0])
    keys = [place.key for place in places if place.holder is siblings]
    if keys != list(range(first, first + len(places))):
        raise UsageError(
            f'the {len(places)} steps {_name(which)} do not follow each other in one list; change one at a time, named '
            'by a dict of type and arguments'
        )
    siblings[first : first + len(places)] = [new, *more]
    return steps


def insert_before(steps: Any, which: str | Mapping, new: Mapping, *more: Mapping) -> Any:
    """Insert steps before a step.

    >>> insert_before([dict(type='LoadImage'), dict(type='PackImageText')], 'PackImageText', dict(type='Resize'))
    [{'type': 'LoadImage'}, {'type': 'Resize'}, {'type': 'PackImageText'}]
    """
    steps = copy.deepcopy(steps)
    siblings, index = _in_list(_one(list(_walk(steps)), which))
    siblings[index:index] = [new, *more]
    return steps


def insert_after(steps: Any, which: str | Mapping, new: Mapping, *more: Mapping) -> Any:
    """Insert steps after a step.

    >>> insert_after([dict(type='LoadImage'), dict(type='PackImageText')], 'LoadImage', dict(type='Resize'))
    [{'type': 'LoadImage'}, {'type': 'Resize'}, {'type': 'PackImageText'}]
    """
    steps = copy.deepcopy(steps)
    siblings, index = _in_list(_one(list(_walk(steps)), which))
    siblings[index + 1 : index + 1] = [new, *more]
    return steps


def remove_step(steps: Any, which: str | Mapping) -> Any:
    """Remove a step.

    >>> remove_step([dict(type='LoadImage'), dict(type='florence_mm.RandomPrompt')], 'RandomPrompt')
    [{'type': 'LoadImage'}]
    """
    steps = copy.deepcopy(steps)
    siblings, index = _in_list(_one(list(_walk(steps)), which))
    del siblings[index]
    return steps


def step_index(steps: Sequence, which: str | Mapping) -> int:
    """Index of a step in a list; steps inside others are not searched.

    >>> step_index([dict(type='LoadImage'), dict(type='mmcv.Resize')], 'Resize')
    1
    """
    places = [_Place(step, steps, index) for index, step in enumerate(steps) if _is_step(step)]
    return _one(places, which).key


def walk_steps(node: Any) -> Iterator[MutableMapping]:
    """Yield all dicts with a ``type`` in a part of a config, outer ones before inner ones."""
    return (place.step for place in _walk(node))


def type_name(step: Mapping) -> str:
    """The class that ``type`` of a dict names, without package.

    >>> type_name(dict(type='mmcv.Resize'))
    'Resize'
    """
    return _names(step)[1]


def _walk(node: Any, holder: Any = None, key: Any = None) -> Iterator[_Place]:
    if _is_step(node):
        yield _Place(node, holder, key)
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _walk(value, node, name)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _walk(value, node, index)


def _is_step(node: Any) -> bool:
    return isinstance(node, Mapping) and 'type' in node


def _one(places: list[_Place], which: str | Mapping) -> _Place:
    """Find the one step that ``which`` names."""
    found = _select(places, which)
    if len(found) > 1:
        raise UsageError(
            f'{len(found)} steps are {_name(which)}: {_steps(found)}; tell which by a dict of type and arguments, as '
            "in dict(type='Resize', keep_ratio=False)"
        )
    return found[0]


def _select(places: list[_Place], which: str | Mapping) -> list[_Place]:
    """Find all steps that ``which`` names, at least one."""
    wanted = dict(which) if isinstance(which, Mapping) else {'type': which}
    type_ = wanted.pop('type', None)
    if not isinstance(type_, str):
        raise UsageError(f'a step is named by its type or by a dict with its type, not by {which!r}')
    of_type = [place for place in places if type_ in _names(place.step)]
    found = [place for place in of_type if all(place.step.get(key, _MISSING) == wanted[key] for key in wanted)]
    if found:
        return found
    if of_type:
        raise UsageError(f'no step {_name(which)}; of the type there is {_steps(of_type)}')
    there = ', '.join(dict.fromkeys(_names(place.step)[0] for place in places)) or 'nothing with a type'
    known = [name for place in places for name in _names(place.step)]
    raise UsageError(f'no step {_name(which)} among {there}{did_you_mean(type_, known)}')


def _names(step: Mapping) -> tuple[str, str]:
    """The type of a step with its package, if given, and without."""
    type_ = step.get('type')
    name = f'{type_.__module__.split(".")[0]}.{type_.__name__}' if isinstance(type_, type) else str(type_)
    return name, name.rsplit('.', 1)[-1]


def _in_list(place: _Place) -> tuple[MutableSequence, int]:
    """The list that contains the step, and the index of the step."""
    if isinstance(place.holder, MutableSequence):
        return place.holder, place.key
    where = f'stands under {place.key!r}' if isinstance(place.holder, Mapping) else 'stands'
    raise UsageError(f'the step {_names(place.step)[0]!r} {where} by itself or in a tuple; put it into a list')


def _name(which: str | Mapping) -> str:
    return repr(which if isinstance(which, str) else dict(which))


def _steps(places: list[_Place]) -> str:
    return ' and '.join(str(dict(place.step)) for place in places)
