"""Overrides that name the members of lists by their type."""

import pytest
from mmengine.config import Config

from florence_mm.config.load import load_config
from florence_mm.config.merge import merge_options, section
from florence_mm.config.origin import origins
from florence_mm.errors import UsageError

TEXT = """
train_dataloader = dict(dataset=dict(type='A', pipeline=[
    dict(type='Load'),
    dict(type='mmcv.RandomApply', transforms=[dict(type='mmaction.Resize', scale=(8, 8))]),
    dict(type='Flip', prob=0.5),
    dict(type='Flip', prob=0.1),
]))
param_scheduler = [dict(type='LinearLR', end=1), dict(type='CosineAnnealingLR', end=3)]
groups = dict(lr_mult={'neck.0': 1.0, 'matcher.cross_modal': 5})
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / 'config.py').write_text(TEXT)
    return tmp_path / 'config.py'


def test_members_of_lists_by_type_and_by_number(path):
    cfg = load_config(
        path,
        {
            'param_scheduler.CosineAnnealingLR.end': 5,
            'param_scheduler.0.end': 2,
            'train_dataloader.dataset.pipeline.RandomApply.transforms.Resize.scale': (4, 4),
            'train_dataloader.dataset.pipeline.-1.prob': 0.3,
        },
    )
    assert cfg.param_scheduler == [dict(type='LinearLR', end=2), dict(type='CosineAnnealingLR', end=5)]
    _, apply, flip, last = cfg.train_dataloader.dataset.pipeline
    assert apply.transforms == [dict(type='mmaction.Resize', scale=(4, 4))]
    assert (flip.prob, last.prob) == (0.5, 0.3)


def test_nested_dicts_name_types_too(path):
    cfg = Config.fromfile(path)
    apply = {'RandomApply': dict(prob=0.9, transforms={'mmaction.Resize': dict(scale=16)}), 'Load': dict(keep=1)}
    merge_options(
        cfg,
        dict(
            train_dataloader=dict(batch_size=2, dataset=dict(pipeline=apply)),
            param_scheduler={'1': dict(begin=1)},
            groups=dict(lr_mult={'neck.0': 3.0}),
            new=dict(a=dict(b=1)),
        ),
    )
    load, apply, *_ = cfg.train_dataloader.dataset.pipeline
    assert load == dict(type='Load', keep=1)
    assert apply == dict(type='mmcv.RandomApply', prob=0.9, transforms=[dict(type='mmaction.Resize', scale=16)])
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.param_scheduler[1] == dict(type='CosineAnnealingLR', end=3, begin=1)
    assert cfg.groups.lr_mult == {'neck.0': 3.0, 'matcher.cross_modal': 5}
    assert cfg.new == dict(a=dict(b=1))


def test_no_member_and_several_are_sentences(path):
    for key, sentence in (
        ('param_scheduler.CosineLR.end', "no step 'CosineLR' among LinearLR, CosineAnnealingLR"),
        ('train_dataloader.dataset.pipeline.Flip.prob', "2 steps are 'Flip': "),
        ('train_dataloader.dataset.pipeline.Resize.scale', "no step 'Resize' among Load, mmcv.RandomApply, Flip"),
        ('param_scheduler.2.end', "'2' is no index of a list of 2"),
        ('param_scheduler.--1.end', "no step '--1' among LinearLR, CosineAnnealingLR"),
        ('param_scheduler.\u00b2.end', "no step '\u00b2' among LinearLR, CosineAnnealingLR"),
        (
            'param_scheduler.0.end.x',
            'param_scheduler.0.end is 1 and has no keys; give param_scheduler.0.end a new value',
        ),
    ):
        with pytest.raises(UsageError) as error:
            load_config(path, {key: 1})
        assert str(error.value).startswith(f'--cfg-options {key}: {sentence}')


@pytest.mark.parametrize(
    ('key', 'value', 'old'),
    [
        ('train_dataloader.dataset.pipeline.RandomApply.transforms.Resize.scale.0', 4, '8'),
        ('param_scheduler.LinearLR', 5, "{'type': 'LinearLR', 'end': 1}"),
    ],
)
def test_members_of_lists_are_not_replaced(path, key, value, old):
    with pytest.raises(UsageError) as error:
        load_config(path, {key: value})
    assert str(error.value).startswith(f'{key} would replace an item of a list, {old}, by {value}; give the whole list')


def test_origin_of_a_value_named_by_type(path):
    found = origins(path, {'param_scheduler.CosineAnnealingLR.end': 5})
    assert found['param_scheduler.1.end'] == (5, 'command line')
    assert found['param_scheduler.0.end'] == (1, str(path))


def test_a_section_of_a_config_can_be_changed():
    cfg = Config({'default_hooks': None, 'randomness': {'seed': 1}, 'words': 'x'})
    section(cfg, 'default_hooks')['timer'] = 3
    section(cfg, 'new')['a'] = 1
    section(cfg, 'randomness')['deterministic'] = True
    assert cfg.default_hooks == {'timer': 3} and cfg.new == {'a': 1}
    assert cfg.randomness == {'seed': 1, 'deterministic': True}
    with pytest.raises(UsageError, match="^words is 'x'; expected a dict$"):
        section(cfg, 'words')
