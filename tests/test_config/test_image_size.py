"""One variable for the size of pictures, which the pipelines follow."""

import pytest
from mmengine.config import Config

from florence_mm.config.check import check_config
from florence_mm.config.image_size import image_size_problem, set_image_size
from florence_mm.config.load import load_config
from florence_mm.errors import UsageError

BASE = """
image_size = 224
train_pipeline = [
    dict(type='Shift', scale=(0.8, 1.2), prob=1),
    dict(type='RandomApply', transforms=[dict(type='Resize', scale=(-1, image_size * 256 // 224))]),
    dict(type='RandomResizedCrop', scale=image_size, resize_first=True),
]
test_pipeline = [
    dict(type='ResizeEdge', scale=image_size * 256 // 224),
    dict(type='CenterCrop', crop_size=(image_size, image_size)),
    dict(type='RandomChoiceResize', scales=[(image_size, 448), (112, 112)]),
]
train_dataloader = dict(dataset=dict(datasets=[dict(pipeline=train_pipeline), dict(pipeline=train_pipeline)]))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(img_size=image_size, scale=224)
"""
CHILD = """
_base_ = './base.py'
from florence_mm.config.image_size import set_image_size

set_image_size(_base_, {})
"""


@pytest.fixture
def child(tmp_path):
    (tmp_path / 'base.py').write_text(BASE)
    path = tmp_path / 'child.py'
    path.write_text(CHILD.format(384))
    return path


def sizes(cfg):
    """By hand: 384 / 224 is 12 / 7."""
    train, test = cfg['train_pipeline'], cfg['test_pipeline']
    assert [data['pipeline'] for data in cfg['train_dataloader']['dataset']['datasets']] == [train, train]
    assert cfg['val_dataloader']['dataset']['pipeline'] == cfg['test_dataloader']['dataset']['pipeline'] == test
    assert train[0] == dict(type='Shift', scale=(0.8, 1.2), prob=1)
    assert train[2]['resize_first'] is True
    return [
        cfg['image_size'],
        train[1]['transforms'][0]['scale'],
        train[2]['scale'],
        test[0]['scale'],
        test[1]['crop_size'],
        test[2]['scales'],
    ]


def test_one_line_changes_all_pipelines_of_a_config(child):
    assert sizes(Config.fromfile(child.with_name('base.py'))) == [
        *(224, (-1, 256), 224, 256, (224, 224), [(224, 448), (112, 112)]),
    ]
    large = [384, (-1, 438), 384, 438, (384, 384), [(384, 768), (192, 192)]]
    cfg = Config.fromfile(child)
    assert sizes(cfg) == large
    # the model has its own arguments
    assert cfg.model == dict(img_size=224, scale=224)
    # the same on the command line, and read from the base of a base
    assert sizes(load_config(child.with_name('base.py'), {'image_size': 384})) == large
    child.with_name('back.py').write_text(CHILD.format(224).replace('base.py', 'child.py'))
    assert sizes(Config.fromfile(child.with_name('back.py'))) == sizes(Config.fromfile(child.with_name('base.py')))
    # down goes up: 256 * 32 / 224 is 36.6
    assert sizes(load_config(child.with_name('base.py'), {'image_size': 32}))[:4] == [32, (-1, 37), 32, 37]


def test_a_list_that_stands_at_two_places_is_changed_once():
    pipeline = [dict(type='CenterCrop', crop_size=100)]
    cfg = dict(image_size=100, val_dataloader=dict(pipeline=pipeline), test_dataloader=dict(pipeline=pipeline))
    set_image_size(cfg, 200)
    assert pipeline == [dict(type='CenterCrop', crop_size=200)]


@pytest.mark.parametrize(
    'cfg, size, sentence',
    [
        (dict(), 384, 'needs two sides in pixels, not None, which the config has as image_size, and 384'),
        (dict(image_size=(64, 64)), 384, r'not \(64, 64\)'),
        (dict(image_size=64), 384.0, 'and 384.0; without'),
        (dict(image_size=64), 0, 'and 0; without'),
        (
            dict(image_size=64, test_pipeline=[dict(type='A', scale=0.5)], model=dict(size=64)),
            384,
            'no transform of the config has a size that could follow image_size',
        ),
        (
            dict(image_size=64, test_pipeline=[dict(type='my.Pad', canvas=(64, 80))]),
            384,
            r'my.Pad has the image_size 64 in canvas=\(64, 80\), which is not known to be a size',
        ),
    ],
)
def test_sizes_that_cannot_follow(cfg, size, sentence):
    with pytest.raises(UsageError, match=sentence):
        set_image_size(cfg, size)


def test_a_variable_set_too_late_is_an_error(child):
    child.write_text("_base_ = './base.py'\nimage_size = 384\n")
    sentence = (
        'image_size: no transform of a pipeline has the size 384, they have 112, 224, 256, 448; write '
        'set_image_size(_base_, 384) (florence_mm.config.image_size), which changes them, in its place'
    )
    with pytest.raises(UsageError) as error:
        check_config(Config.fromfile(child))
    assert sentence in str(error.value).split('\n')
    # other packages have variables of this name too
    assert image_size_problem(dict(image_size=(1024, 1024), test_pipeline=[dict(type='A', scale=8)])) is None
    assert image_size_problem(dict(image_size=224, model=dict(size=3))) is None
