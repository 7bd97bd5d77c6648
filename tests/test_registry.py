"""Unscoped names built from our registries are ours under every default scope."""

import pytest
from mmengine.registry import DefaultScope

from florence_mm.registry import MODELS


@pytest.fixture
def probe():
    class FlorenceProbe:
        def __init__(self, value, child=None):
            self.value = value
            self.child = MODELS.build(child) if child else None

    MODELS.register_module(module=FlorenceProbe)
    yield FlorenceProbe
    MODELS.module_dict.pop('FlorenceProbe')


@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain', 'mmaction', 'florence_mm', 'mmengine'])
def test_own_name_wins_under_every_default_scope(probe, scope):
    with DefaultScope.overwrite_default_scope(scope):
        built = MODELS.build({'type': 'FlorenceProbe', 'value': 1, 'child': {'type': 'FlorenceProbe', 'value': 2}})
    assert type(built) is probe and type(built.child) is probe and built.child.value == 2


def test_other_packages_reach_ours_by_scope(probe):
    from mmdet.registry import MODELS as MMDET_MODELS

    with DefaultScope.overwrite_default_scope('mmdet'):
        assert type(MMDET_MODELS.build({'type': 'florence_mm.FlorenceProbe', 'value': 1})) is probe


def test_foreign_names_follow_the_default_scope():
    cfg = {'type': 'ResNet', 'depth': 18}
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert type(MODELS.build(cfg)).__module__.startswith('mmdet.')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        assert type(MODELS.build(cfg)).__module__.startswith('mmpretrain.')


def test_class_names_are_in_no_other_package():
    from mmaction.registry import MODELS as MMACTION_MODELS
    from mmdet.registry import MODELS as MMDET_MODELS
    from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS

    for registry in (MODELS, MMACTION_MODELS, MMDET_MODELS, MMPRETRAIN_MODELS):
        registry.import_from_location()
    ours = set(MODELS.module_dict)
    assert {'CoSwin', 'UniCL'} <= ours
    for registry in (MMACTION_MODELS, MMDET_MODELS, MMPRETRAIN_MODELS):
        assert not ours & set(registry.module_dict)
