"""Reading of torch files that hold objects of other packages: tensors and plain values, without executing anything.

``torch.load(weights_only=True)`` refuses a whole file for one object it does not know, such as the yacs ``CfgNode`` or
the ``argparse.Namespace`` that the releases of Swin, UniCL and METER have beside their tensors. Here such an object
becomes an inert stand-in: its class is never imported, and nothing of it is called. Afterwards a stand-in that holds
keys, attributes or elements is replaced by a plain dict or list of them, and the others are left out.
"""

import _compat_pickle
import collections
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch._weights_only_unpickler import _get_allowed_globals

#: Modules of Python's library whose objects are mere data; anything else of the library can reach the system.
_DATA_MODULES = frozenset(
    [
        'argparse',
        'array',
        'collections',
        'copyreg',
        'datetime',
        'decimal',
        'enum',
        'fractions',
        'functools',
        'logging',
        'pathlib',
        'random',
        're',
        'types',
        'uuid',
        'zoneinfo',
    ]
)
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_GETATTR = 'builtins.getattr'
_FILLED = (list, dict, set, collections.OrderedDict, collections.Counter, collections.defaultdict)


class UnsafeContent(Exception):
    """A file asks for something that runs code; the message names it."""


class StandIn:
    """An object of a class that is not imported: its name and what the file says of it."""

    def __init__(self, name: str, args: tuple = ()) -> None:
        self.name, self.args = name, args
        self.state: Any = None
        self.keys: dict = {}
        self.elements: list = []

    def __setitem__(self, key: Any, value: Any) -> None:
        self.keys[key] = value

    def append(self, element: Any) -> None:
        """Keep an element of a list-like object."""
        self.elements.append(element)

    add = append

    def extend(self, elements: list) -> None:
        """Keep elements of a list-like object."""
        self.elements.extend(elements)


def _of_python_3(module: str, name: str) -> tuple[str, str]:
    """Today's place of an object of Python's library: pickles of protocol 2, torch's, name the one of Python 2."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        return _compat_pickle.NAME_MAPPING[module, name]
    return _compat_pickle.IMPORT_MAPPING.get(module, module), name


class _Class:
    """The name of a class or function that is not imported."""

    def __init__(self, name: str) -> None:
        self.name = name


class InertUnpickler(pickle._Unpickler):
    """Python's unpickler with an allow-list: all that is outside becomes a :class:`StandIn`.

    The allow-list is torch's own of ``weights_only=True``, with what was added to it by
    ``torch.serialization.add_safe_globals``.
    """

    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._allowed = dict(_get_allowed_globals())
        for entry in torch.serialization.get_safe_globals():
            value, name = entry if isinstance(entry, tuple) else (entry, f'{entry.__module__}.{entry.__qualname__}')
            self._allowed[name] = value
        self._callable = {id(value) for value in self._allowed.values()}

    def find_class(self, module: str, name: str) -> Any:
        """Return the allowed object of that name, or a stand-in's class.

        Raises:
            UnsafeContent: the name is of Python's library and not mere data.
        """
        module, name = _of_python_3(module, name)
        full = f'{module}.{name}'
        if full in self._allowed and full != _GETATTR:
            return self._allowed[full]
        if full in (_GETATTR, 'builtins.object', 'builtins.dict', 'builtins.list', 'builtins.tuple'):
            return _Class(full)
        top = module.split('.')[0]
        if top not in _DATA_MODULES and (top in sys.stdlib_module_names or top in ('posix', 'nt')):
            raise UnsafeContent(full)
        return _Class(full)

    def get_extension(self, code: int) -> None:
        """Refuse the registry of extensions, whose entries are not named in the file."""
        raise UnsafeContent(f'extension {code}')

    def _call(self, function: Any, args: Any) -> Any:
        args = tuple(args)
        if isinstance(function, _Class):
            if function.name == _GETATTR:
                return self._attribute(*args)
            if function.name.startswith('copyreg.') and args and isinstance(args[0], _Class):
                return StandIn(args[0].name, args[1:])  # an object of an old protocol, made by its class
            return StandIn(function.name, args)
        if isinstance(function, StandIn):
            return StandIn(function.name, args)
        if id(function) not in self._callable:
            raise UnsafeContent(getattr(function, '__name__', str(function)))
        return function(*args)

    def _attribute(self, owner: Any, name: str) -> Any:
        # mmengine's log history asks for its own methods, which compat allows, and nothing else
        if isinstance(owner, _Class | StandIn) or _GETATTR not in self._allowed:
            raise UnsafeContent(f'{getattr(owner, "name", type(owner).__name__)}.{name}')
        try:
            return self._allowed[_GETATTR](owner, name)
        except ValueError:
            raise UnsafeContent(f'{type(owner).__name__}.{name}') from None

    def load_reduce(self) -> None:
        """Call an allowed function, or make a stand-in."""
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    def load_newobj(self) -> None:
        """Make an object of an allowed class, or a stand-in."""
        self.load_reduce()

    def load_newobj_ex(self) -> None:
        """Make a stand-in; no allowed class takes keywords."""
        keywords = self.stack.pop()
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)
        if isinstance(self.stack[-1], StandIn):
            self.stack[-1].keys.update(keywords)

    def _instantiate(self, klass: Any, args: Any) -> None:
        """Make an object in the protocols 0 and 1."""
        self.append(self._call(klass, args))

    def load_build(self) -> None:
        """Give an object its state."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, StandIn):
            target.state = state
        elif type(target) is collections.OrderedDict and isinstance(state, dict):
            target.__dict__.update(state)
        elif isinstance(target, np.ndarray | np.dtype) or (
            id(type(target)) in self._callable and hasattr(target, '__setstate__')
        ):
            target.__setstate__(state)
        elif id(type(target)) in self._callable and isinstance(state, dict) and hasattr(target, '__dict__'):
            target.__dict__.update(state)
        else:
            raise UnsafeContent(f'the state of a {type(target).__name__}')

    def _filled(self, load: Callable, depth: int) -> None:
        target = self.stack[depth] if depth < 0 else self.metastack[-1][-1]
        if type(target) not in (*_FILLED, StandIn):
            raise UnsafeContent(f'elements of a {type(target).__name__}')
        load(self)

    def load_append(self) -> None:
        """Append to a list or a stand-in."""
        self._filled(pickle._Unpickler.load_append, -2)

    def load_setitem(self) -> None:
        """Set an item of a dict or a stand-in."""
        self._filled(pickle._Unpickler.load_setitem, -3)

    def load_appends(self) -> None:
        """Extend a list or a stand-in."""
        self._filled(pickle._Unpickler.load_appends, 0)

    def load_setitems(self) -> None:
        """Set items of a dict or a stand-in."""
        self._filled(pickle._Unpickler.load_setitems, 0)

    def load_additems(self) -> None:
        """Add to a set or a stand-in."""
        self._filled(pickle._Unpickler.load_additems, 0)

    for _code, _method in (
        (pickle.REDUCE, load_reduce),
        (pickle.NEWOBJ, load_newobj),
        (pickle.NEWOBJ_EX, load_newobj_ex),
        (pickle.BUILD, load_build),
        (pickle.APPEND, load_append),
        (pickle.APPENDS, load_appends),
        (pickle.SETITEM, load_setitem),
        (pickle.SETITEMS, load_setitems),
        (pickle.ADDITEMS, load_additems),
    ):
        dispatch[_code[0]] = _method
    del _code, _method


def _load(file: Any, **kwargs: Any) -> Any:
    return InertUnpickler(file, **kwargs).load()


def read_inert(file: Path, map_location: Any) -> tuple[Any, dict[str, str]]:
    """Read a file of ``torch.save`` that ``weights_only=True`` refuses.

    Args:
        file: the file; a zip archive or of the older format.
        map_location: see :func:`torch.load`.

    Returns:
        the content, tensors and plain values, and the objects that were not made: class by where they are.

    Raises:
        UnsafeContent: the file asks for something that runs code; it was not run.
        Exception: the file is no pickle; of any type.
    """
    # torch reads the archive and makes the tensors' storages; this module reads the pickle in it
    module = SimpleNamespace(__name__='inert', Unpickler=InertUnpickler, load=_load)
    return plain_content(torch.load(file, map_location=map_location, pickle_module=module, weights_only=False))


def plain_content(content: Any) -> tuple[Any, dict[str, str]]:
    """Replace stand-ins by dicts and lists; also returns the objects that were not made: class by where they are."""
    foreign: dict[str, str] = {}
    plain = _plain(content, '', foreign, {})
    return (None if plain is _GONE else plain), foreign


_GONE = object()  # of a value that is left out


def _plain(value: Any, where: str, foreign: dict[str, str], done: dict[int, Any]) -> Any:
    """Replace stand-ins by dicts and lists; ``done`` holds the values that were met, so that circles end."""
    if isinstance(value, (*_PLAIN, torch.Tensor)):
        return value
    if id(value) in done:
        return done[id(value)][1]
    if isinstance(value, _Class):
        foreign[where] = value.name
        return _GONE
    if isinstance(value, StandIn):
        foreign[where] = value.name
        held = value.keys or (value.state if isinstance(value.state, dict) else None)
        if held is None and not value.elements:
            return _GONE
        result: Any = {} if held is not None else []
        # the stand-in is kept with its result, as another object could get the id of one that is gone
        done[id(value)] = (value, result)
        return _fill(result, held if held is not None else value.elements, where, foreign, done)
    if isinstance(value, dict):
        result = collections.OrderedDict() if isinstance(value, collections.OrderedDict) else {}
        if hasattr(value, '_metadata'):
            result._metadata = value._metadata
        done[id(value)] = (value, result)
        return _fill(result, value, where, foreign, done)
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.tolist()
    if isinstance(value, set | frozenset) and all(isinstance(element, _PLAIN) for element in value):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        result = []
        done[id(value)] = (value, result)
        _fill(result, value, where, foreign, done)
        return tuple(result) if isinstance(value, tuple) else result
    return value


def _fill(result: Any, values: Any, where: str, foreign: dict[str, str], done: dict[int, Any]) -> Any:
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in pairs:
        plain = _plain(value, f'{where}.{key}' if where else str(key), foreign, done)
        if isinstance(result, list):
            result.append(None if plain is _GONE else plain)  # the others keep their places
        elif plain is not _GONE:
            result[key if isinstance(key, str | int | float | bool | type(None)) else str(key)] = plain
    return result
