"""Keyword arguments that a class or function accepts, following ``**kwargs`` into parent classes."""

import ast
import contextlib
import functools
import inspect
import textwrap
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

#: The arguments cannot be known without running the code.
Unknown = None


@dataclass(frozen=True)
class Arguments:
    """Arguments of a class or function.

    Attributes:
        known (Mapping[str, inspect.Parameter]): Those that are written down, with annotation and default.
        complete (bool): Whether there are no others.
    """

    known: Mapping[str, inspect.Parameter] = field(default_factory=dict)
    complete: bool = False


def accepted_arguments(target: Callable) -> frozenset[str] | None:
    """Find the keyword arguments that a class or function accepts; :data:`Unknown` if they cannot all be known."""
    found = arguments_of(target)
    return frozenset(found.known) if found.complete else Unknown


@functools.cache
def arguments_of(target: Callable) -> Arguments:
    """Find the keyword arguments that a class or function accepts.

    ``**kwargs`` stands for the arguments of the next ``__init__`` in the method resolution order if it is passed to
    ``super().__init__``, and for the names read from it (``kwargs.pop('name')``). For any other use of it, a decorated
    constructor, or code without source, the result is not complete.
    """
    if inspect.isclass(target):
        return _class_arguments(target, target.__mro__)
    if inspect.isfunction(target):
        return _function_arguments(target, skip_self=False, parents=Arguments)
    return Arguments()


@functools.cache
def mentions(owner: type, key: str) -> bool:
    """Whether ``key`` occurs as a string in the source of a class or one of its parents."""
    for cls in getattr(owner, '__mro__', ()):
        if cls.__module__.split('.')[0] in ('torch', 'builtins'):
            continue
        with contextlib.suppress(OSError, TypeError):
            source = inspect.getsource(cls)
            if f"'{key}'" in source or f'"{key}"' in source:
                return True
    return False


def _class_arguments(cls: type, mro: tuple[type, ...]) -> Arguments:
    for position, owner in enumerate(mro):
        if owner is object:
            return Arguments(complete=True)
        # torch's Module takes arguments only to reject them
        if owner.__module__ == 'torch.nn.modules.module' and owner.__name__ == 'Module':
            return Arguments(complete=True)
        if '__new__' in vars(owner) and '__init__' not in vars(owner):
            return Arguments()
        if '__init__' in vars(owner):
            rest = mro[position + 1 :]
            return _function_arguments(
                vars(owner)['__init__'], skip_self=True, parents=functools.partial(_class_arguments, cls, rest)
            )
    return Arguments(complete=True)


def _function_arguments(function: Callable, skip_self: bool, parents: Callable[[], Arguments]) -> Arguments:
    if not inspect.isfunction(function) or hasattr(function, '__wrapped__'):
        return Arguments()  # a decorator may rename arguments
    parameters = _parameters(function)[1 if skip_self else 0 :]
    known = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    rest = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
    if rest is None:
        return Arguments(known, complete=True)
    use = _uses_of_kwargs(function, rest)
    if use is Unknown:
        return Arguments(known)
    read, forwarded = use
    inherited = parents() if forwarded else Arguments(complete=True)
    anything = {name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in read}
    return Arguments({**inherited.known, **anything, **known}, inherited.complete)


def _parameters(function: Callable) -> list[inspect.Parameter]:
    """The parameters of a function; annotations written as texts are resolved where they can be."""
    parameters = list(inspect.signature(function).parameters.values())
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # names that exist only for a type checker, in other packages' code
        return parameters
    return [parameter.replace(annotation=hints.get(parameter.name, parameter.empty)) for parameter in parameters]


def _uses_of_kwargs(function: Callable, kwargs: str) -> tuple[set[str], bool] | None:
    """Names read from ``kwargs``, and whether it is passed to ``super().__init__``; Unknown for any other use."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return Unknown
    read: set[str] = set()
    understood, forwarded, total = 0, False, 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == kwargs:
            total += 1
        elif isinstance(node, ast.Call):
            if _is_super_init(node.func, function):
                spread = sum(_is_name(word.value, kwargs) for word in node.keywords if word.arg is None)
                forwarded |= spread > 0
                understood += spread
            name = _method_argument(node, kwargs)
            if name is not None:
                read.add(name)
                understood += 1
        elif isinstance(node, ast.Subscript) and _is_name(node.value, kwargs) and _is_text(node.slice):
            read.add(node.slice.value)
            understood += 1
        elif isinstance(node, ast.Compare) and _is_text(node.left) and _is_name(node.comparators[0], kwargs):
            read.add(node.left.value)
            understood += 1
    # kwargs that are neither read nor passed on accept any key, which does not tell which are meant
    return (read, forwarded) if total and understood == total else Unknown


def _is_super_init(func: ast.expr, function: Callable) -> bool:
    """Whether ``func`` is the ``__init__`` of ``super()``, without arguments or with the class that it is in."""
    if not (isinstance(func, ast.Attribute) and func.attr == '__init__' and isinstance(func.value, ast.Call)):
        return False
    call = func.value
    owner = function.__qualname__.split('.')[-2:-1]
    # super(Parent, self) skips classes
    return _is_name(call.func, 'super') and (not call.args or [getattr(call.args[0], 'id', None)] == owner)


def _method_argument(call: ast.Call, kwargs: str) -> str | None:
    """Return ``'x'`` of ``kwargs.get('x')``, ``kwargs.pop('x', ...)`` and ``kwargs.setdefault('x', ...)``."""
    func = call.func
    reads = isinstance(func, ast.Attribute) and func.attr in ('get', 'pop', 'setdefault')
    if reads and _is_name(func.value, kwargs) and call.args and _is_text(call.args[0]):
        return call.args[0].value
    return None


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
