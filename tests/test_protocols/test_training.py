"""Training of the models that protocols need, from the given towers and only once."""

import pytest
import torch
from fake_protocols import Fake, make_plan
from small_suite import write_weights_of

from florence_mm.apis.zoo import init_model
from florence_mm.corpora.digits import write_digits
from florence_mm.errors import UsageError
from florence_mm.protocols import training
from florence_mm.protocols.base import Entry
from florence_mm.protocols.embedded import DIGITS
from florence_mm.protocols.retrieval import EMBEDDED
from florence_mm.protocols.suite import run_suite
from florence_mm.protocols.suites import TOWERS

CONFIG = f"""
_base_ = '{TOWERS['embedded']}'
load_from = 'work_dirs/quickstart/epoch_22.pth'
train_dataloader = dict(batch_size=8)
param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=True, begin=0, end=1)]
train_cfg = dict(max_epochs=1)
default_hooks = dict(checkpoint=dict(interval=1))
"""


def test_training_starts_from_the_towers_and_is_done_once(tmp_path, monkeypatch):
    data, towers = tmp_path / 'sets', tmp_path / 'pretrained.pth'
    write_digits(data / 'digits')
    for split, step in (('train', 80), ('test', 30)):
        file = data / f'digits/{split}.jsonl'
        file.write_text('\n'.join(file.read_text().splitlines()[::step]) + '\n')
    write_weights_of(TOWERS['embedded'], towers, data)
    (tmp_path / 'own.py').write_text(CONFIG)
    protocol = EMBEDDED[0].protocol
    entry = Entry(protocol, config=str(tmp_path / 'own.py'), trained=True)
    seen = []

    def load(cfg, checkpoint):
        seen.append(checkpoint)
        return init_model(cfg, checkpoint)

    plan = make_plan(tmp_path, checkpoint=str(towers), data_root=data, load=load, train=True)
    (row,) = run_suite([entry], plan, {})
    assert row.status == 'done', row.note
    assert row.checkpoint == seen[0]
    before = torch.load(towers, weights_only=True)['state_dict']
    after = torch.load(seen[0], weights_only=True)['state_dict']
    moved = [(after[key] - before[key]).abs().max().item() for key in before if before[key].is_floating_point()]
    # from the towers: two steps of AdamW move a weight little, other random weights would be far off
    assert 0 < max(moved) < 0.02
    monkeypatch.setattr(training, 'build_runner', lambda cfg: pytest.fail('trained again'))
    (row,) = run_suite([entry], plan, {})
    assert row.kept and row.checkpoint == seen[0]
    # other towers are another training
    write_weights_of(TOWERS['embedded'], towers, data, seed=4)
    with pytest.raises(pytest.fail.Exception):
        training.train(entry, None, str(towers), data, plan.out_dir / 'trained')
    assert DIGITS.missing(tmp_path / 'nowhere') is None


def test_a_config_that_trains_nothing_is_told(tmp_path):
    plan = make_plan(tmp_path)
    entry = Entry(Fake('detection/a'), config=plan.config, trained=True)
    with pytest.raises(UsageError, match='trains nothing; give detection/a a checkpoint with --task-checkpoint'):
        training.train(entry, None, plan.checkpoint, plan.data_root, tmp_path)
