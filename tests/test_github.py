"""Files that GitHub and publishers read: forms, workflow, citation, release steps; what they name exists."""

import os
import re
from pathlib import Path

import pytest
import yaml

from florence_mm.version import __version__

ROOT = Path(__file__).resolve().parents[1]
TARGETS = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
#: Kinds of a form's fields -> what GitHub wants of their attributes.
FIELDS = {'textarea': 'label', 'input': 'label', 'dropdown': 'label', 'checkboxes': 'label', 'markdown': 'value'}


def read(name):
    return yaml.safe_load((ROOT / name).read_text())


@pytest.mark.parametrize('path', sorted((ROOT / '.github/ISSUE_TEMPLATE').glob('*.yml')), ids=lambda path: path.stem)
def test_issue_forms(path):
    form = yaml.safe_load(path.read_text())
    if path.name == 'config.yml':
        assert form == {'blank_issues_enabled': True}
        return
    assert {'name', 'description', 'body'} <= set(form) <= {'name', 'description', 'body', 'labels', 'title'}
    ids = [field['id'] for field in form['body']]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r'[\w-]+', name) for name in ids)
    for field in form['body']:
        assert field['attributes'][FIELDS[field['type']]]
        assert set(field) <= {'type', 'id', 'attributes', 'validations'}
    assert any(field.get('validations', {}).get('required') for field in form['body'])


def test_workflow_runs_what_contributors_run():
    workflow = read('.github/workflows/ci.yml')
    assert set(workflow[True]) == {'push', 'pull_request'}  # YAML 1.1 reads the key `on` as true
    assert workflow['permissions'] == {'contents': 'read'}
    commands = [step['run'] for job in workflow['jobs'].values() for step in job['steps'] if 'run' in step]
    assert commands == ['.ci/run'] and os.access(ROOT / '.ci/run', os.X_OK)
    steps = re.findall(r'^make (\S+)$', (ROOT / '.ci/run').read_text(), re.MULTILINE)
    assert {'docs', 'lint', 'test'} <= set(steps) <= TARGETS
    said = re.search(r'`\.ci/run` runs (.*?);', (ROOT / 'CONTRIBUTING.md').read_text(), re.DOTALL)[1]
    assert re.findall(r'`make (\S+)`', said) == steps


def test_citation_is_of_this_version():
    citation = read('CITATION.cff')
    assert {'cff-version', 'message', 'title', 'authors'} <= set(citation)
    assert citation['version'] == __version__ and citation['license'] == 'Apache-2.0'
    assert 'Apache License' in (ROOT / 'LICENSE').read_text()[:200]
    names = [author['family-names'] for author in citation['references'][0]['authors']]
    assert len(names) == 23 and names[0] == 'Yuan' and names[-1] == 'Zhang'


@pytest.mark.parametrize(
    'page', ['docs/release.md', 'docs/faq.md', 'CONTRIBUTING.md', 'SECURITY.md', '.github/pull_request_template.md']
)
def test_pages_name_commands_and_files_that_exist(page):
    text = (ROOT / page).read_text()
    assert set(re.findall(r'(?:`|^ +)make ([a-z-]+)', text, re.MULTILINE)) <= TARGETS
    files = re.findall(r'\b((?:tools|tests|docs|florence_mm|requirements)/[\w./-]+\.(?:py|sh|md|txt))\b', text)
    assert [name for name in files if not (ROOT / name).exists()] == []


def test_a_wheel_has_the_name_that_the_release_steps_install():
    text = (ROOT / 'docs/release.md').read_text()
    (version,) = set(re.findall(r'florence_mm-([\d.]+)-py3-none-any\.whl', text))
    assert f'git tag -a v{version} ' in text and f'"Release {version}"' in text
