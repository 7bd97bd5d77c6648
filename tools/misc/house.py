"""The folders of florence_mm, what belongs into each, and the arrows between them, as docs/architecture.md shows them.

    python tools/misc/house.py [--write]

Prints a table made from every import in the sources; ``--write`` puts it into the page. Imports inside functions,
imports for type checkers and names of modules in strings count like any other. ``tests/test_house.py`` holds the rules.
"""

import argparse
import ast
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / 'florence_mm'
PAGE = ROOT / 'docs/architecture.md'
BEGIN = '<!-- made by python tools/misc/house.py --write -->'
END = '<!-- end of what tools/misc/house.py made -->'

#: Folders, and files beside them, from the lowest to the highest: each may import what comes before it. ``models``
#: means the files in that folder, ``''`` the package's own ``__init__`` and ``__main__``.
ORDER = (
    'errors',
    'version',
    'moved',
    'registry',
    'compat',
    'doctor',
    'ops',
    'utils',
    'language',
    'formats',
    'config',
    'corpora',
    'datasets',
    'preparation',
    'curation',
    'models',
    'models.generation',
    'models.tokenizers',
    'models.layers',
    'models.checkpoints',
    'models.text',
    'models.backbones',
    'models.multimodal',
    'models.heads',
    'models.algorithms',
    'models.detectors',
    'evaluation',
    'visualization',
    'engine',
    'smoke',
    'export',
    'protocols',
    'apis',
    'commands',
    '',
)
#: The folder whose folders are kept in order too.
DIVIDED = 'models'


class Import(NamedTuple):
    """One module of the package named in another; both by their dotted names without the package's."""

    source: str
    target: str
    line: int


def find_modules(package: Path = PACKAGE) -> dict[str, Path]:
    """The files of a package by dotted name without the package's; a folder's name means its ``__init__.py``."""
    modules = {}
    for path in sorted(package.rglob('*.py')):
        parts = path.relative_to(package).with_suffix('').parts
        modules['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return modules


def find_imports(package: Path = PACKAGE) -> list[Import]:
    """Every import of a module of the package by another one, in the order of files and lines.

    ``from a import b`` imports the module ``a.b`` where there is one, else ``a``. That importing ``a.b`` also runs
    ``a/__init__.py`` does not count. A string counts where all of it is the dotted name of a module, or of something
    in one, with the package's name in front.

    Args:
        package: the package's folder.
    """
    modules = find_modules(package)
    found = []
    for source, path in modules.items():
        own = path.relative_to(package).with_suffix('').parts[:-1]
        for name, line, is_string in _named(ast.parse(path.read_text(encoding='utf-8')), (package.name, *own)):
            target = _module(name, package.name, modules, is_string)
            if target is not None and target != source:
                found.append(Import(source, target, line))
    return sorted(set(found), key=lambda item: (item.source, item.line, item.target))


def _named(tree: ast.Module, folder: tuple[str, ...]) -> Iterator[tuple[str, int, bool]]:
    """What a file names, with lines and whether by a string; relative imports start in the package ``folder``."""
    skipped = {id(string) for string in _no_imports(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = folder[: len(folder) + 1 - node.level] if node.level else ()
            start = '.'.join((*start, *filter(None, [node.module])))
            yield from ((f'{start}.{alias.name}', node.lineno, False) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.value, node.lineno, True


def _no_imports(tree: ast.Module) -> Iterator[ast.AST]:
    """Strings that import nothing: docstrings, and the tables of ``moved_names``, which say where old names went."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            yield node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'moved_names':
            yield from ast.walk(node)


def _module(name: str, package: str, modules: Collection[str], is_string: bool) -> str | None:
    """The longest beginning of a dotted name that is a module of the package; None: it means none of the package's."""
    if is_string and not re.fullmatch(r'\w+(\.\w+)+(:\w+)?', name):  # a.b, or a.b:name
        return None
    first, _, rest = name.replace(':', '.').partition('.')
    if first != package:
        return None
    while rest and rest not in modules:
        rest = rest.rpartition('.')[0]
    # as a string, florence_mm.UniCL is a name in a registry
    return rest or (None if is_string else '')


def folder_of(module: str) -> str:
    """The entry of :data:`ORDER` that a module belongs to, or the one that is missing there."""
    parts = module.split('.')
    if parts[0] == DIVIDED and (len(parts) > 2 or module in ORDER):
        return '.'.join(parts[:2])
    return '' if module == '__main__' else parts[0]


def find_arrows(imports: Iterable[Import]) -> dict[str, set[str]]:
    """For each folder the other folders that its files import."""
    arrows = defaultdict(set)
    for source, target, _ in imports:
        if folder_of(source) != folder_of(target):
            arrows[folder_of(source)].add(folder_of(target))
    return dict(arrows)


def find_circles(imports: Iterable[Import]) -> list[tuple[str, ...]]:
    """Sets of modules each of which reaches every other of its set by imports, as sorted tuples."""
    arrows = defaultdict(set)
    for source, target, _ in imports:
        arrows[source].add(target)
    reached = {source: _reach(source, arrows) for source in arrows}
    circles = {
        tuple(sorted(other for other in reached[source] if source in reached.get(other, ())))
        for source in reached
        if source in reached[source]
    }
    return sorted(circles)


def _reach(start: str, arrows: Mapping[str, Collection[str]]) -> set[str]:
    """What can be reached from ``start`` in one step or more."""
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        new = set(arrows.get(waiting.pop(), ())) - reached
        reached |= new
        waiting += new
    return reached


def make_table(package: Path = PACKAGE) -> str:
    """A markdown table of the folders, the highest first: name, first paragraphs of the docstring, direct imports."""
    modules, arrows = find_modules(package), find_arrows(find_imports(package))
    rows = ['| folder | what belongs there, and what does not | imports |', '|---|---|---|']
    for entry in reversed(ORDER):
        docstring = ast.get_docstring(ast.parse(modules[entry].read_text(encoding='utf-8'))) or ''
        what = ' '.join(docstring.split()) if modules[entry].name == '__init__.py' else docstring.split('\n\n')[0]
        targets = sorted(arrows.get(entry, ()), key=ORDER.index, reverse=True)
        rows.append(f'| {_label(entry, modules)} | {" ".join(what.split())} | {", ".join(targets) or "nothing"} |')
    return re.sub(r':\w+:`~?\.?([^`]+)`', r'`\1`', '\n'.join(rows)).replace('``', '`')


def _label(entry: str, modules: Mapping[str, Path]) -> str:
    if not entry:
        return '`__init__.py`, `__main__.py`'
    return f'`{entry.replace(".", "/")}/`' if modules[entry].name == '__init__.py' else f'`{entry}.py`'


def put_between(page: str, table: str) -> str:
    """A page with the table between its two comments, whatever stood there.

    Raises:
        ValueError: it has not each of them once, in their order.
    """
    before, found, rest = page.partition(f'{BEGIN}\n')
    _, end, after = rest.partition(f'\n{END}')
    if not found or not end or BEGIN in after or END in after:
        raise ValueError(f'{PAGE} must have the lines {BEGIN} and {END} once, between which the table stands')
    return f'{before}{BEGIN}\n{table}\n{END}{after}'


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--write', action='store_true', help=f'put the table into {PAGE.relative_to(ROOT)}')
    args = parser.parse_args()
    table = make_table()
    if not args.write:
        print(table)
        return
    from florence_mm.utils.files import write_atomic  # imports torch, which printing does without

    write_atomic(PAGE, put_between(PAGE.read_text(encoding='utf-8'), table))


if __name__ == '__main__':
    main()
