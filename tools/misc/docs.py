"""Gather the pages of the docs site: the repository's own and the reference.

    python tools/misc/docs.py && mkdocs build --strict      # make docs

The pages lie in ``.cache/docs`` as in the repository, with every file that they link to, so that a link works on the
site as it does beside the sources. ``reference/`` is made from docstrings, of which ``.cache/docs_sources`` has a copy
with Markdown for Sphinx roles.
"""

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ('*.md', 'docs/**/*.md', 'configs/*/README.md', 'projects/**/README.md')
#: Folders whose public names are in the reference, in its order.
REFERENCE = (
    'apis',
    'protocols',
    'export',
    'models',
    'datasets',
    'preparation',
    'corpora',
    'curation',
    'evaluation',
    'visualization',
    'engine',
    'config',
    'formats',
    'language',
    'ops',
    'utils',
)
_LINK = re.compile(r'\]\((?!\w+:|#)([^)#\s]+)(?:#[^)\s]*)?\)')
_ROLE = re.compile(r':(?:class|func|meth|mod|attr|data|exc|obj):`~?\.?([^`]+)`')
#: An example and its results, up to an empty line or the end of the docstring.
_DOCTEST = re.compile(r'(?m)^( *)>>> .*\n(?:(?! *"""| *\n).*\n)*')


def gather(target: Path) -> None:
    """Copy all pages, and the files that they link to.

    Args:
        target: folder to put them into, as in the repository.
    """
    pages = sorted({page for pattern in PAGES for page in ROOT.glob(pattern)})
    linked = {(page.parent / link).resolve() for page in pages for link in _LINK.findall(page.read_text('utf-8'))}
    for file in {*pages, *(path for path in linked if path.is_file() and path.is_relative_to(ROOT))}:
        copy = target / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def public_names(path: Path) -> Iterator[tuple[str, str]]:
    """Public classes and functions of a module, each with the first sentence of its docstring."""
    for node in ast.parse(path.read_text('utf-8')).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith('_'):
            docstring = ast.get_docstring(node) or ''
            sentence = re.split(r'(?<=\.)\s', ' '.join(docstring.split()), maxsplit=1)[0]
            yield node.name, _ROLE.sub(r'`\1`', sentence).replace('``', '`').replace('|', '\\|')


def write_reference(folder: Path) -> None:
    """Write the list of public names, and a page of docstrings for each folder of the package.

    Args:
        folder: where the pages go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = ['# Reference', '', 'All public classes and functions. Configs name a registered class by `type`.', '']
    for name in REFERENCE:
        package = ROOT / 'florence_mm' / name
        page, rows = [f'# {name}', ''], []
        for path in sorted(package.rglob('*.py')):
            module = '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
            names = list(public_names(path))
            rows += [f'| [`{public}`][{module}.{public}] | {sentence} |' for public, sentence in names]
            page += [f'::: {module}', ''] if names else []
        index += [f'## {name}', '', f'[Docstrings of {name}]({name}.md)', '', '| name | what it is |', '|---|---|']
        index += [*rows, '']
        (folder / f'{name}.md').write_text('\n'.join(page), 'utf-8')
    (folder / 'README.md').write_text('\n'.join(index), 'utf-8')


def write_sources(folder: Path) -> None:
    """Copy the package with the Sphinx roles and literal blocks of its docstrings as Markdown."""
    for path in sorted((ROOT / 'florence_mm').rglob('*.py')):
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = _ROLE.sub(r'`\1`', path.read_text('utf-8'))
        text = _DOCTEST.sub(_fenced, text)
        copy.write_text(re.sub(r'(?m)(?<=\w)::$', ':', re.sub(r'(?m)^ *::\n', '', text)), 'utf-8')


def _fenced(match: re.Match) -> str:
    return f'{match[1]}```pycon\n{match[0].rstrip()}\n{match[1]}```\n'


def main() -> None:
    """Make the folders anew."""
    pages, sources = ROOT / '.cache/docs', ROOT / '.cache/docs_sources'
    for folder in (pages, sources):
        shutil.rmtree(folder, ignore_errors=True)
    gather(pages)
    write_reference(pages / 'reference')
    write_sources(sources)


if __name__ == '__main__':
    main()
