"""Models by name: the list, its filters, and names in place of configs."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from florence_mm.config import metafiles
from florence_mm.config.load import load_config
from florence_mm.config.metafiles import is_model_name, list_models, model_entries, model_entry
from florence_mm.errors import UsageError

DIGITS = 'unicl_coswin-micro_1xb64-36e_digits'


@pytest.fixture
def two_entries(tmp_path, monkeypatch):
    """A package with two models of one config, of which one has weights of others."""
    of_others = {'Weights SHA256': 'ab' * 32, 'Weights Licence': 'MIT', 'Weights Layout': 'clip', 'Weights Source': 'x'}
    models = [
        {'Name': 'b_plain', 'In Collection': 'B', 'Config': 'configs/b/plain.py', 'Metadata': {'Task': 'detection'}},
        {
            'Name': 'a_theirs',
            'In Collection': 'B',
            'Config': 'configs/b/plain.py',
            'Metadata': {'Task': 'classification', 'Parameters': 7, 'FLOPs': 9, 'FLOPs Input': 'one', **of_others},
            'Weights': 'https://localhost/w.pth',
            'Results': [{'Task': 'T', 'Dataset': 'D', 'Metrics': {'m': 1}}],
        },
    ]
    (tmp_path / 'configs/b').mkdir(parents=True)
    (tmp_path / 'configs/b/plain.py').write_text("model = dict(type='M')\nvalue = 3\n")
    (tmp_path / 'configs/b/metafile.yml').write_text(yaml.safe_dump({'Models': models}))
    (tmp_path / 'model-index.yml').write_text('Import: [configs/b/metafile.yml]')
    monkeypatch.setattr(metafiles, '_ROOT', tmp_path)
    model_entries.cache_clear()
    yield tmp_path
    model_entries.cache_clear()


def test_an_entry(two_entries):
    entry = model_entry('a_theirs')
    assert (entry.task, entry.parameters, entry.macs, entry.macs_input) == ('classification', 7, 9, 'one')
    assert entry.config == two_entries / 'configs/b/plain.py' and entry.collection == 'B'
    assert entry.weights == metafiles.Weights('https://localhost/w.pth', 'ab' * 32, 'MIT', 'clip', 'x')
    assert not entry.weights.embedded and entry.results[0]['Metrics'] == {'m': 1}
    plain = model_entry('b_plain')
    assert plain.weights is None and plain.parameters is None and plain.results == ()


def test_list_and_its_filters(two_entries):
    assert list_models() == ['a_theirs', 'b_plain']
    assert list_models(pretrained=True) == list_models(task='classification') == list_models('THEIR') == ['a_theirs']
    assert list_models(pretrained=False) == list_models('b_*') == ['b_plain']
    assert list_models('*', 'detection', True) == list_models('their*') == []
    with pytest.raises(UsageError, match="task 'detecton' is none of .*; did you mean 'detection'?"):
        list_models(task='detecton')


def test_a_name_in_place_of_a_config(two_entries):
    assert load_config('a_theirs', {'value': 4}).value == 4
    assert load_config('b_plain').value == 3


def test_what_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'folder').mkdir()
    assert is_model_name(DIGITS) and is_model_name('misspelt')
    for other in ('mmdet::a/b.py', 'configs/a.py', 'a.py', 'a.yml', './a', 'folder', Path(DIGITS), None):
        assert not is_model_name(other)
    (tmp_path / DIGITS).mkdir()  # a work folder of that name does not hide the model
    assert is_model_name(DIGITS)


@pytest.mark.parametrize('name', [f'{DIGITS[:-1]}', 'nothing like it', '', 'x' * 5000])
def test_unknown_names(name):
    with pytest.raises(UsageError, match='no model has the name') as error:
        model_entry(name)
    assert ('did you mean' in str(error.value)) == (name == DIGITS[:-1])
    assert '\n' not in str(error.value)


def test_the_list_needs_no_models():
    """Names are looked up without what a model is made of, whose import takes seconds."""
    code = (
        'import sys, florence_mm as f; assert len(f.list_models()) > 30\n'
        'try: f.get_model("unicl")\n'
        'except Exception as error: assert "no model has the name" in str(error)\n'
        'print([name for name in ("mmdet", "mmpretrain", "torchvision", "transformers") if name in sys.modules])'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == '[]', done.stderr[-500:]
