"""Every config: builds on the meta device under a foreign scope, has the stated size, takes two smoke steps."""

from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import DefaultScope

from florence_mm.engine.config_check import check_config
from florence_mm.engine.smoke import run_smoke
from florence_mm.registry import MODELS

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


@pytest.mark.parametrize('path', CONFIGS)
@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain'])
def test_config_builds_under_a_foreign_scope_with_the_stated_size(path, scope):
    cfg = Config.fromfile(ROOT / path)
    check_config(cfg)
    with DefaultScope.overwrite_default_scope(scope), torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert sum(p.numel() for p in model.parameters()) == metafile_models()[path]['Metadata']['Parameters']


@pytest.mark.parametrize('path', CONFIGS)
def test_two_smoke_steps(path, tmp_path):
    metrics = run_smoke(Config.fromfile(ROOT / path), tmp_path)
    ranks = {key for key in metrics if key.endswith(('_MdR', '_MnR'))}
    assert metrics and all(value >= 1 if key in ranks else 0 <= value <= 1 for key, value in metrics.items())
