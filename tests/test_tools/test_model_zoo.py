"""The page of the zoo is written from the metafiles, and the recipes of embedded models are those of the zoo."""

import json
import math
import runpy
import sys
from pathlib import Path

import pytest

from florence_mm.config.load import load_config
from florence_mm.config.metafiles import model_entries

ROOT = Path(__file__).parents[2]
MISC = ROOT / 'tools/misc'


def test_the_page_is_current():
    zoo = runpy.run_path(str(MISC / 'model_zoo.py'))
    text = zoo['PAGE'].read_text()
    assert zoo['page']() == text, 'run python tools/misc/model_zoo.py --write'
    assert all(f'[{name}](../configs/' in text for name in model_entries())
    assert 'None' not in text, 'an entry without a count has a dash'


@pytest.fixture(scope='module')
def tool():
    sys.path.insert(0, str(MISC))
    try:
        return runpy.run_path(str(MISC / 'publish_embedded.py'))
    finally:
        sys.path.remove(str(MISC))


def test_recipes_are_the_embedded_entries(tool):
    recipes = tool['RECIPES']
    embedded = {entry.name for entry in model_entries().values() if entry.weights and entry.weights.embedded}
    assert {recipe.name for recipe in recipes} == embedded
    before = set()
    for recipe in recipes:
        assert recipe.config == model_entries()[recipe.name].config
        assert set(recipe.begins_with) <= before and set(recipe.data) <= set(tool['DATA'])
        before.add(recipe.name)


def test_recipes_begin_with_what_their_configs_name(tool):
    for recipe in tool['RECIPES']:
        cfg = load_config(recipe.config)
        text = f'{cfg.get("load_from")} {cfg.model}'
        for other in tool['RECIPES']:
            assert (other.checkpoint in text) == (other.name in recipe.begins_with), (recipe.name, other.name)


def test_what_is_chosen(tool, tmp_path, monkeypatch):
    published = set()
    monkeypatch.setitem(tool['chosen'].__globals__, 'published', lambda name: name in published or None)
    detector = 'zero-shot_coswin-micro_fpn_dyhead_2xb4-3e_scenes'
    crops, digits = 'unicl_coswin-micro_1xb64-10e_scene-crops', 'unicl_coswin-micro_1xb64-36e_digits'
    assert [recipe.name for recipe in tool['chosen']([detector])] == [digits, crops, detector]
    published.update([crops, detector])
    assert [recipe.name for recipe in tool['chosen']([detector])] == [detector]
    assert len(tool['chosen']([])) == len(tool['RECIPES'])
    with pytest.raises(tool['UsageError'], match=f'none of the embedded models; did you mean {digits!r}'):
        tool['chosen']([digits[:-1]])


def test_a_low_score_is_not_published_and_others_go_on(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('FLORENCE_MM_HOME', str(tmp_path / 'home'))
    names = [recipe.name for recipe in tool['RECIPES']]
    crops = 'unicl_coswin-micro_1xb64-10e_scene-crops'
    done = []
    here = tool['main'].__globals__
    monkeypatch.setitem(here, 'published', lambda name: Path(name) if name in done else None)
    monkeypatch.setitem(
        here, 'publish_one', lambda recipe, work_dir: recipe.name != crops and not done.append(recipe.name)
    )
    monkeypatch.setattr(sys, 'argv', ['publish_embedded.py', '--work-dir', str(tmp_path)])
    assert tool['main']() == 1
    assert done == [name for name in names if name not in (crops, 'zero-shot_coswin-micro_fpn_dyhead_2xb4-3e_scenes')]
    assert f'begins with {crops}' in capsys.readouterr().err


@pytest.mark.parametrize('reranked, expected', [(0.35, 0.35), (0.34, -math.inf)])
def test_a_reranker_must_exceed_what_it_reranks(tool, tmp_path, reranked, expected):
    (recipe,) = (one for one in tool['RECIPES'] if one.name == 'meter_coswin-micro_rerank_2xb16-2e_large-digits')
    checkpoint = tmp_path / recipe.checkpoint
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    metrics = {recipe.score: reranked, recipe.above: 0.34}
    (checkpoint.parent / 'test_metrics.json').write_text(json.dumps({'metrics': metrics}))
    assert tool['train'](recipe, tmp_path) == expected
