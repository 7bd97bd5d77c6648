"""Unscoped names built from our registries are ours under every default scope."""

import sys
import types

import pytest
from mmengine.registry import DefaultScope, Registry

from florence_mm.datasets.transforms import Resize
from florence_mm.models import heads
from florence_mm.registry import MODELS, TRANSFORMS, OwnFirstRegistry, register_models


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


@pytest.mark.parametrize('scope', ['mmdet', 'mmaction', 'mmpretrain', 'mmengine', 'florence_mm'])
def test_a_name_that_packages_share_is_that_of_the_default_scope(scope):
    import mmaction.datasets.transforms
    import mmcv.transforms
    import mmdet.datasets.transforms

    classes = {'mmdet': mmdet.datasets.transforms.Resize, 'mmaction': mmaction.datasets.transforms.Resize}
    expected = {**classes, 'florence_mm': Resize}.get(scope, mmcv.transforms.Resize)
    with DefaultScope.overwrite_default_scope(scope):
        assert type(TRANSFORMS.build({'type': 'Resize', 'scale': (8, 8)})) is expected
        assert type(TRANSFORMS.build({'type': 'florence_mm.Resize', 'scale': (8, 8)})) is Resize


def test_transforms_of_names_that_packages_share_are_listed():
    from mmaction.registry import TRANSFORMS as MMACTION_TRANSFORMS
    from mmdet.registry import TRANSFORMS as MMDET_TRANSFORMS
    from mmpretrain.registry import TRANSFORMS as MMPRETRAIN_TRANSFORMS

    others = MMACTION_TRANSFORMS, MMDET_TRANSFORMS, MMPRETRAIN_TRANSFORMS, TRANSFORMS.root
    for registry in (TRANSFORMS, *others):
        registry.import_from_location()
    assert TRANSFORMS.names & {name for registry in others for name in registry.module_dict} == TRANSFORMS.shared


def test_class_names_are_in_no_other_package():
    from mmaction.registry import MODELS as MMACTION_MODELS
    from mmdet.registry import MODELS as MMDET_MODELS
    from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS

    for registry in (MODELS, MMACTION_MODELS, MMDET_MODELS, MMPRETRAIN_MODELS):
        registry.import_from_location()
    ours = MODELS.names
    assert {'CoSwin', 'UniCL', 'DynamicHead'} <= ours
    for registry in (MMACTION_MODELS, MMDET_MODELS, MMPRETRAIN_MODELS):
        assert not ours & set(registry.module_dict)


@pytest.mark.parametrize(
    'look_up',
    [
        lambda root, ours: ours.get('Late'),
        lambda root, ours: ours.get('florence_late.Late'),
        lambda root, ours: root.get('florence_late.Late'),
        lambda root, ours: ours.module_dict['Late'],
        lambda root, ours: 'Late' in ours and ours.module_dict.get('Late'),
        lambda root, ours: Registry('late', parent=ours, scope='florence_child', locations=['sys']).get('Late'),
        lambda root, ours: type(ours.build({'type': 'Late'})),
        lambda root, ours: type(ours.build({'type': 'florence_late.Late'})),
        lambda root, ours: type(root.build({'type': 'florence_late.Late'})),
    ],
)
def test_deferred_classes_are_imported_when_asked_for(tmp_path, monkeypatch, look_up):
    (tmp_path / 'deferred_classes.py').write_text(
        'from deferring_registry import REGISTRY\n@REGISTRY.register_module()\nclass Late:\n    ...\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    root = Registry('late', scope='mmengine', locations=['sys'])
    ours = OwnFirstRegistry(
        'late', parent=root, scope='florence_late', locations=['sys'], deferred={'Late': 'deferred_classes'}
    )
    monkeypatch.setitem(sys.modules, 'deferring_registry', types.SimpleNamespace(REGISTRY=ours))
    ours.register_module('Early', module=dict)
    assert ours.get('Early') is dict and ours.get('florence_late.Early') is dict and ours.get('Other') is None
    assert 'deferred_classes' not in sys.modules
    assert ours.names == {'Early', 'Late'} and list(ours.module_dict) == ['Early']
    try:
        assert look_up(root, ours).__module__ == 'deferred_classes'
    finally:
        sys.modules.pop('deferred_classes', None)


@pytest.mark.parametrize('place', ['__init__.py', 'model.py'])
def test_a_family_that_cannot_be_imported_is_not_left_out(tmp_path, monkeypatch, place):
    family = tmp_path / 'some_models/family'
    family.mkdir(parents=True)
    for file in (family.parent / '__init__.py', family / '__init__.py', family / 'model.py'):
        file.write_text('')
    (family / place).write_text('import a_package_that_is_nowhere\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        with pytest.raises(ModuleNotFoundError, match='a_package_that_is_nowhere'):
            register_models('some_models')
    finally:
        for name in [name for name in sys.modules if name.split('.')[0] == 'some_models']:
            del sys.modules[name]


def test_mmdet_is_imported_for_its_head_alone(fresh_process):
    """In another process, since this one has imported everything."""
    code = """
        import sys
        from florence_mm.registry import MODELS
        assert MODELS.get('METER') and MODELS.get('florence_mm.CoSwin')
        print('mmdet' in sys.modules, 'torch._dynamo' in sys.modules)
    """
    result = fresh_process(code)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split() == ['False', 'False']
    assert MODELS.get('DynamicHead').__module__ == 'florence_mm.models.heads.dynamic_head'
    assert heads.DynamicHead is MODELS.get('DynamicHead')


def test_heads_without_such_a_name():
    with pytest.raises(AttributeError, match=r"'florence_mm\.models\.heads' has no attribute 'DynamicHaed'"):
        _ = heads.DynamicHaed
    assert all(hasattr(heads, name) for name in heads.__all__)
