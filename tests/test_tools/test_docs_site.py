"""What tools/misc/docs.py gathers for the docs site; `make docs` builds it strictly."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = '''"""Counting of :class:`~florence_mm.ops.Box`."""


def count(boxes):
    """Count boxes, see :func:`area`. More.

    Args:
        boxes: them.

    >>> count([1, 2])
    2
    """


def _hidden():
    """Not shown."""
'''


@pytest.fixture
def docs(tmp_path):
    """The tool's functions on a small checkout."""
    functions = runpy.run_path(str(ROOT / 'tools/misc/docs.py'))
    functions['gather'].__globals__['ROOT'] = tmp_path
    for name, text in {
        'README.md': '[a](docs/a.md) [code](florence_mm/ops/counting.py) [web](https://x.org/y.md) [gone](gone.md)',
        'docs/a.md': '![p](images/p.png) [back](../README.md#top) [out](../../secret.txt)',
        'docs/images/p.png': 'png',
        'docs/images/unused.png': 'png',
        'florence_mm/ops/counting.py': SOURCE,
        '../secret.txt': 'secret',
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return functions


def test_pages_lie_as_in_the_repository_with_what_they_link_to(docs, tmp_path):
    docs['gather'](tmp_path / 'out')
    found = {path.relative_to(tmp_path / 'out').as_posix() for path in (tmp_path / 'out').rglob('*') if path.is_file()}
    assert found == {'README.md', 'docs/a.md', 'docs/images/p.png', 'florence_mm/ops/counting.py'}


def test_reference_lists_public_names(docs, tmp_path):
    docs['write_reference'](tmp_path / 'reference')
    index = (tmp_path / 'reference/README.md').read_text()
    assert '| [`count`][florence_mm.ops.counting.count] | Count boxes, see `area`. |' in index
    assert '_hidden' not in index
    assert (tmp_path / 'reference/ops.md').read_text() == '# ops\n\n::: florence_mm.ops.counting\n'
    nav = (ROOT / 'mkdocs.yml').read_text()
    assert all(f' {name}: reference/{name}.md\n' in nav for name in docs['REFERENCE'])


def test_docstrings_are_markdown(docs, tmp_path):
    docs['write_sources'](tmp_path / 'sources')
    text = (tmp_path / 'sources/florence_mm/ops/counting.py').read_text()
    assert text.startswith('"""Counting of `florence_mm.ops.Box`."""') and 'see `area`. More.' in text
    assert '    ```pycon\n    >>> count([1, 2])\n    2\n    ```\n    """\n' in text
