"""Prompt templates and class names for zero-shot classification.

The ImageNet ones are read from open_clip's ``zero_shot_metadata.py``; the file is loaded by itself because
importing the package costs seconds and needs torchvision and timm.
"""

import functools
import importlib.util
from collections.abc import Sequence
from types import ModuleType

from .clip_prompts import CLIP_SETS, clip_prompts

SIMPLE_TEMPLATES = (
    '{}',
    'a {}.',
    'a photo of a {}.',
    'a photo of the {}.',
    'a cropped photo of the {}.',
    'a picture of one {}.',
    'a drawing of a {}.',
)


@functools.cache
def _open_clip_metadata() -> ModuleType:
    package = importlib.util.find_spec('open_clip')
    if package is None or not package.submodule_search_locations:
        raise ImportError("the ImageNet prompts come from open_clip; install it with 'pip install open_clip_torch'")
    path = f'{package.submodule_search_locations[0]}/zero_shot_metadata.py'
    spec = importlib.util.spec_from_file_location(f'{__name__}._zero_shot_metadata', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def _imagenet_templates() -> tuple[str, ...]:
    # open_clip has functions of the class name; applied to '{}' they give the template
    return tuple(template('{}') for template in _open_clip_metadata().OPENAI_IMAGENET_TEMPLATES)


def get_templates(templates: str | Sequence[str] = 'imagenet') -> list[str]:
    """Return prompt templates by name, or check a list of templates.

    Args:
        templates: ``'imagenet'`` (81: CLIP's 80 and ``'{}.'``, as in the public UniCL code,
            ``data/language/prompt_engineering.py``), ``'simple'`` (7), ``'none'`` (the text as it is), those of
            CLIP's protocol for a set, ``'imagenet1k'`` (80) or one of
            :data:`~florence_mm.language.clip_prompts.CLIP_SETS`, or a list of strings with one ``{}`` each.

    Returns:
        list[str]: Templates with one ``{}`` for the class name.

    Raises:
        ValueError: an unknown name, an empty list, or a template without exactly one ``{}``.

    >>> get_templates('simple')[:3], len(get_templates('imagenet'))
    (['{}', 'a {}.', 'a photo of a {}.'], 81)
    """
    if isinstance(templates, str):
        if templates == 'imagenet':
            return ['{}.', *_imagenet_templates()]
        if templates == 'imagenet1k':
            return list(_imagenet_templates())
        if templates in CLIP_SETS:
            return list(clip_prompts(templates).templates)
        if templates == 'simple':
            return list(SIMPLE_TEMPLATES)
        if templates == 'none':
            return ['{}']
        raise ValueError(f"no templates named {templates!r}; use 'imagenet', 'simple', 'none' or a list of strings")
    if not isinstance(templates, list | tuple):
        raise ValueError(f'the prompt templates are {templates!r}; give a name or a list of strings')
    templates = list(templates)
    if not templates:
        raise ValueError("the list of prompt templates is empty; use ['{}'] to leave texts as they are")
    for template in templates:
        if not isinstance(template, str) or template.count('{}') != 1 or template.count('{') + template.count('}') != 2:
            raise ValueError(f"prompt template {template!r} must be a string with exactly one '{{}}'")
    return templates


def clean_class_name(name: str) -> str:
    """Prepare a class name for a prompt: drop commas, replace plus signs by spaces (as the public UniCL code)."""
    return name.replace(',', '').replace('+', ' ')


def fill_template(template: str, name: str) -> str:
    """Put the cleaned class name into a template, in place of its ``{}``.

    >>> fill_template('a photo of a {}.', 'great white shark, white shark')
    'a photo of a great white shark white shark.'
    """
    # not str.format, which would interpret braces in a class name
    return template.replace('{}', clean_class_name(name))


def get_class_names(dataset: str) -> list[str]:
    """Return the class names of a known data set in the order of its labels.

    Args:
        dataset (str): ``'imagenet1k'`` (1000 names, from open_clip), ``'digits'`` ("zero" to "nine"), or one of
            :data:`~florence_mm.language.clip_prompts.CLIP_SETS`, in CLIP's order.

    Raises:
        ValueError: an unknown data set.
    """
    if dataset == 'imagenet1k':
        return list(_open_clip_metadata().IMAGENET_CLASSNAMES)
    if dataset == 'digits':
        return ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine']
    if dataset in CLIP_SETS:
        return list(clip_prompts(dataset).classes)
    raise ValueError(f'no class names for {dataset!r}; known are {", ".join(("imagenet1k", "digits", *CLIP_SETS))}')
