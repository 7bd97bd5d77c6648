"""Values of configs written as text, read without running it."""

import ast
from typing import Any


class _DictCalls(ast.NodeTransformer):
    """Writes ``dict(a=1)`` as ``{'a': 1}``, which is a literal."""

    def visit_Call(self, node: ast.Call) -> ast.expr:  # noqa: N802
        self.generic_visit(node)
        is_dict = isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args
        if not is_dict or any(keyword.arg is None for keyword in node.keywords):
            return node
        keys: list[ast.expr | None] = [ast.Constant(keyword.arg) for keyword in node.keywords]
        return ast.Dict(keys, [keyword.value for keyword in node.keywords])


def literal(text: str) -> Any:
    """Evaluate a Python literal, in which ``dict(a=1)`` may stand for ``{'a': 1}``.

    Raises:
        ValueError, SyntaxError: it is none.

    >>> literal('[dict(a=1), (2, None)]')
    [{'a': 1}, (2, None)]
    """
    return ast.literal_eval(_DictCalls().visit(ast.parse(text, mode='eval')))


def assigned_literals(text: str) -> dict[str, Any]:
    """Evaluate lines ``name = literal``, as :func:`literal` does; returns the values by name.

    Raises:
        ValueError, SyntaxError: there is anything else.
    """
    values = {}
    for node in _DictCalls().visit(ast.parse(text)).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            raise ValueError(f'line {node.lineno} assigns no value to a name')
        values[node.targets[0].id] = ast.literal_eval(node.value)
    return values
