"""Small instances of the classes that ``florence_mm.models`` registers; tests of every class build them.

How a class is built small stands in a file ``small_<family>.py`` beside this one: its ``SMALL`` is a dict of
:class:`Small` by name, that of the class with a variant behind a dash. Such a file is found by its name, and nothing
else need know of it.
"""

import functools
import pkgutil
import runpy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

import florence_mm.models
from florence_mm.registry import MODELS, TASK_UTILS

HERE = Path(__file__).parent
PACKAGE = florence_mm.models.__name__


@dataclass(frozen=True)
class Small:
    """A small instance of a class.

    Attributes:
        config: arguments with ``type``, children as configs; of sizes at which all parts of the class still work.
        kind: what goes in and what comes out, see ``kinds.py``.
        protocols: names of all protocols of ``florence_mm.models`` that instances fulfil.
        without_gradient: beginnings of the names of parameters that a training step gives no gradient, with the reason.
        refuses_none: what the error says that a batch of none meets; empty: such a batch is taken.
    """

    config: Mapping[str, Any]
    kind: Any
    protocols: Sequence[str] = ()
    without_gradient: Mapping[str, str] = field(default_factory=dict)
    refuses_none: str = ''

    @property
    def registry(self):
        return MODELS if self.config['type'] in MODELS.names else TASK_UTILS


# --- what there is ----------------------------------------------------------------------------------------------------


def registered():
    """The registered classes of the models' package by name, those included that are imported late."""
    classes = {name: registry.get(name) for registry in (MODELS, TASK_UTILS) for name in sorted(registry.names)}
    return {name: cls for name, cls in classes.items() if f'{cls.__module__}.'.startswith(f'{PACKAGE}.')}


@functools.cache
def find_smalls(folder=HERE):
    """All small instances by name.

    Raises:
        ValueError: a file without SMALL, or a name that two files have.
    """
    smalls = {}
    for path in sorted(folder.glob('small_*.py')):
        own = runpy.run_path(str(path)).get('SMALL')
        if not own:
            raise ValueError(
                f'{path} has no SMALL; give it a dict of names and small instances, as small_coswin.py has'
            )
        if twice := sorted(smalls.keys() & own):
            raise ValueError(f'{path} has {twice[0]!r}, which another file has too; give it another name')
        smalls.update(own)
    return smalls


def complaints(classes, smalls):
    """Sentences about classes without a small instance, and about instances of what is no such class."""
    built = {small.config['type'] for small in smalls.values()}
    lacking = [
        f'{name} ({cls.__module__}) is registered and has no small instance, so that no test holds it to its kind; put '
        f'one into SMALL of tests/test_models/small_<family>.py, where <family> is its own, as small_coswin.py does'
        for name, cls in classes.items()
        if name not in built
    ]
    return lacking + [
        f'{name!r} builds {small.config["type"]}, which {PACKAGE} does not register; name it for a class that it does, '
        'with a variant behind a dash'
        for name, small in smalls.items()
        if name.partition('-')[0] != small.config['type'] or small.config['type'] not in classes
    ]


def protocols():
    """The protocols that the modules ``protocol`` of the models' package define, by name."""
    names = [info.name for info in pkgutil.walk_packages(florence_mm.models.__path__, f'{PACKAGE}.')]
    found = {}
    for module in (import_module(name) for name in names if name.rpartition('.')[2] == 'protocol'):
        own = [cls for cls in vars(module).values() if getattr(cls, '__module__', '') == module.__name__]
        found.update({cls.__name__: cls for cls in own if getattr(cls, '_is_protocol', False)})
    return found


# --- building ---------------------------------------------------------------------------------------------------------


def build(name, seed=0, scope=None, dtype=torch.float64, spread=True, **changes):
    """A small instance in evaluation mode, with weights at which every part of it matters.

    Args:
        name: of the small instance.
        seed: of its weights.
        scope: default scope in which it is built; None: as it is.
        dtype: of its weights.
        spread: wide weights instead of those that it is built with.
        changes: keys of the config.
    """
    small = find_smalls()[name]
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope(scope) if scope else nullcontext():
        # as config files give it: mmdet reads some of its options as attributes
        made = small.registry.build(ConfigDict({**small.kind.config(dict(small.config)), **changes}))
    if not isinstance(made, nn.Module):
        return made
    return (scattered(made, seed) if spread else made).to(dtype).eval()


def scattered(module, seed=0):
    """Wide weights instead of first ones, at which half of a model's parts would hardly show in its outputs."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.data = noise * parameter[0].numel() ** -0.5
        else:  # biases, factors of norms, temperatures
            parameter.data += 0.1 * noise
    return module


def names_of(*kinds, protocol=None):
    """Names of the small instances of some kinds, or that fulfil a protocol."""
    return [
        name
        for name, small in find_smalls().items()
        if (not kinds or isinstance(small.kind, kinds)) and (protocol is None or protocol in small.protocols)
    ]


# --- comparing --------------------------------------------------------------------------------------------------------


def assert_same(got, expected, **tolerance):
    """Outputs of items are equal, up to rounding of fp64 (1e-16 a sum, of sums of sums of a few hundred numbers)."""
    for own, other in zip(got, expected, strict=True):
        assert own.keys() == other.keys(), (own.keys(), other.keys())
        for key, value in own.items():
            assert_close(value, other[key], key, **tolerance)


def assert_close(got, expected, what='', **tolerance):
    if not isinstance(got, torch.Tensor | float):
        assert got == expected, f'{what}: {got!r} and {expected!r}'
        return
    got, expected = torch.as_tensor(got), torch.as_tensor(expected)
    if got.dtype == torch.float64 and not tolerance:
        tolerance = {'rtol': 1e-9, 'atol': 1e-9}
    torch.testing.assert_close(got, expected, **tolerance, msg=lambda text: f'{what}: {text}')


def assert_gradients(module, unreached):
    """Every parameter has a gradient, but for those whose names begin so, which have none."""
    parameters = dict(module.named_parameters())
    idle = [start for start in unreached if not any(name.startswith(start) for name in parameters)]
    assert not idle, f'no parameter begins with {idle}, which are said to get no gradient'
    reached = {name for name, value in parameters.items() if value.grad is not None and bool(value.grad.any())}
    wanted = {name for name in parameters if not name.startswith(tuple(unreached))}
    assert reached == wanted, f'without gradient: {wanted - reached}; with one against the table: {reached - wanted}'


def differ(one, other):
    """Whether any output of any item is another."""
    try:
        assert_same(one, other)
    except AssertionError:
        return True
    return False
