"""Keyword arguments that a class or function accepts, following ``**kwargs`` into parent classes."""

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable

#: The arguments cannot be known without running the code.
Unknown = None


@functools.cache
def accepted_arguments(target: Callable) -> frozenset[str] | None:
    """Find the keyword arguments that a class or function accepts.

    ``**kwargs`` stands for the arguments of the next ``__init__`` in the method resolution order if it is passed to
    ``super().__init__``, and for the names read from it (``kwargs.pop('name')``). For any other use of it, a decorated
    constructor, or code without source, the result is :data:`Unknown`.
    """
    if inspect.isclass(target):
        return _class_arguments(target, target.__mro__)
    if inspect.isfunction(target):
        return _function_arguments(target, skip_self=False, parents=lambda: Unknown)
    return Unknown


def _class_arguments(cls: type, mro: tuple[type, ...]) -> frozenset[str] | None:
    for position, owner in enumerate(mro):
        if owner is object:
            return frozenset()
        # torch's Module takes arguments only to reject them
        if owner.__module__ == 'torch.nn.modules.module' and owner.__name__ == 'Module':
            return frozenset()
        if '__new__' in vars(owner) and '__init__' not in vars(owner):
            return Unknown
        if '__init__' in vars(owner):
            rest = mro[position + 1 :]
            return _function_arguments(
                vars(owner)['__init__'], skip_self=True, parents=functools.partial(_class_arguments, cls, rest)
            )
    return frozenset()


def _function_arguments(
    function: Callable, skip_self: bool, parents: Callable[[], frozenset[str] | None]
) -> frozenset[str] | None:
    if not inspect.isfunction(function) or hasattr(function, '__wrapped__'):
        return Unknown  # a decorator may rename arguments
    parameters = list(inspect.signature(function).parameters.values())[1 if skip_self else 0 :]
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    rest = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
    if rest is None:
        return frozenset(names)
    use = _uses_of_kwargs(function, rest)
    if use is Unknown:
        return Unknown
    read, forwarded = use
    names |= read
    if forwarded:
        inherited = parents()
        if inherited is Unknown:
            return Unknown
        names |= inherited
    return frozenset(names)


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
