"""Every config: builds on the meta device under a foreign scope, has the stated size, takes two smoke steps."""

from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import DefaultScope

from florence_mm.config.check import check_config
from florence_mm.registry import MODELS
from florence_mm.smoke.run import run_smoke

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts
)


def metafile_models():
    """Config path -> its entry, over all metafiles of the model index."""
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    entries = {}
    for file in index['Import']:
        for model in yaml.safe_load((ROOT / file).read_text())['Models']:
            assert model['Config'] not in entries
            entries[model['Config']] = model
    return entries


def test_every_config_has_a_metafile_entry_and_every_entry_a_config():
    models = metafile_models()
    assert set(models) == set(CONFIGS)
    for path, model in models.items():
        assert model['Name'] == Path(path).stem


def without_files(node):
    """A model's config without files that are no part of the repository.

    Sizes do not hang on them, apart from a vocabulary of answers, which for the embedded questions has 27.
    """
    if isinstance(node, (list, tuple)):
        return [without_files(item) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get('answers'), str):
        assert node['answers'] == 'data/large_digit_questions/answers.txt'
        node = {**node, 'answers': [f'answer {number}' for number in range(27)]}
    return {key: None if key == 'pretrained' else without_files(value) for key, value in node.items()}


@pytest.mark.parametrize('path', CONFIGS)
@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain'])
def test_config_builds_under_a_foreign_scope_with_the_stated_size(path, scope):
    cfg = Config.fromfile(ROOT / path)
    check_config(cfg)
    with DefaultScope.overwrite_default_scope(scope), torch.device('meta'):
        model = MODELS.build(without_files(cfg.model))
    assert sum(p.numel() for p in model.parameters()) == metafile_models()[path]['Metadata']['Parameters']


@pytest.mark.parametrize('path', CONFIGS)
def test_two_smoke_steps(path, tmp_path):
    cfg = Config.fromfile(ROOT / path)
    metrics = run_smoke(cfg, tmp_path)
    # ranks begin at 1, CIDEr-D ends at 10
    limits = {'MdR': (1, float('inf')), 'MnR': (1, float('inf')), 'CIDEr-D': (0, 10)}
    for key, value in metrics.items():
        low, high = next((limits[end] for end in limits if key.endswith(end)), (0, 1))
        assert low <= value <= high, key
    assert metrics or not cfg.get('val_dataloader') and not cfg.get('test_dataloader')
