"""Steps found by their type, and what a config file makes of them."""

import copy
import subprocess
import sys

import pytest
from mmengine.config import Config

from florence_mm.config.load import load_config
from florence_mm.config.pick import (
    change_step,
    find_step,
    insert_after,
    insert_before,
    remove_step,
    replace_step,
    replace_steps,
    step_index,
)
from florence_mm.errors import UsageError


class Blur:
    """A type that a config names as a class."""


def pipeline():
    return [
        dict(type='florence_mm.LoadImage'),
        dict(type='mmcv.Resize', scale=(256, 256), keep_ratio=True),
        dict(type='mmcv.RandomApply', transforms=[dict(type=Blur, radius=3)]),
        dict(type='mmcv.RandomChoice', transforms=[[dict(type='RandomFlip')], [dict(type='mmdet.RandomCrop')]]),
        dict(type='mmcv.TransformBroadcaster', transforms=dict(type='Pad', size=8)),
        dict(type='mmcv.Resize', scale=(224, 224)),
        dict(type='PackImageText'),
    ]


def types(steps):
    return [str(step['type']).rsplit('.', 1)[-1] for step in steps]


def test_a_step_is_found_with_and_without_its_package_and_inside_wrappers():
    steps = pipeline()
    assert find_step(steps, 'LoadImage') is find_step(steps, 'florence_mm.LoadImage') is steps[0]
    assert find_step(steps, 'Blur') is find_step(steps, f'{__name__.split(".")[0]}.Blur')
    assert find_step(steps, 'Blur')['radius'] == 3
    assert find_step(steps, 'RandomCrop') is steps[3]['transforms'][1][0]
    assert find_step(steps, 'Pad') is steps[4]['transforms']
    assert find_step(dict(dataset=dict(type='Data', pipeline=steps)), 'Pad')['size'] == 8
    # of two of a type, the one with these arguments
    assert find_step(steps, dict(type='Resize', keep_ratio=True)) is steps[1]
    assert find_step(steps, dict(type='mmcv.Resize', scale=(224, 224))) is steps[5]


@pytest.mark.parametrize(
    'which, sentence',
    [
        (
            'RandomFlp',
            "no step 'RandomFlp' among florence_mm.LoadImage, mmcv.Resize, mmcv.RandomApply, {blur}, "
            'mmcv.RandomChoice, RandomFlip, mmdet.RandomCrop, mmcv.TransformBroadcaster, Pad, PackImageText; did you '
            "mean 'RandomFlip'?",
        ),
        # another package's
        ('mmcv.RandomCrop', "PackImageText; did you mean 'mmdet.RandomCrop'?"),
        ('Zzz', 'TransformBroadcaster, Pad, PackImageText'),
        (
            'Resize',
            "2 steps are 'Resize': {{'type': 'mmcv.Resize', 'scale': (256, 256), 'keep_ratio': True}} and "
            "{{'type': 'mmcv.Resize', 'scale': (224, 224)}}; tell which by a dict of type and arguments, as in "
            "dict(type='Resize', keep_ratio=False)",
        ),
        (
            dict(type='Pad', size=9),
            "no step {{'type': 'Pad', 'size': 9}}; of the type there is {{'type': 'Pad', 'size': 8}}",
        ),
        (dict(size=9), "a step is named by its type or by a dict with its type, not by {{'size': 9}}"),
        (1, 'a step is named by its type or by a dict with its type, not by 1'),
    ],
)
def test_no_step_and_several_are_sentences(which, sentence):
    with pytest.raises(UsageError) as error:
        find_step(pipeline(), which)
    assert str(error.value).endswith(sentence.format(blur=f'{__name__}.Blur'))


def test_changes_are_copies():
    steps = pipeline()
    untouched = copy.deepcopy(steps)
    changed = change_step(steps, 'Pad', size=16, extra=dict(a=1))
    assert changed[4]['transforms'] == dict(type='Pad', size=16, extra=dict(a=1))
    # dicts merge, as between config files
    again = change_step(changed, 'Pad', extra=dict(b=2))
    assert again[4]['transforms']['extra'] == dict(a=1, b=2)
    assert change_step(again, 'Pad', extra=dict(_delete_=True, c=3))[4]['transforms']['extra'] == dict(c=3)
    assert change_step(steps, dict(type='Resize', keep_ratio=True), type='mmdet.Resize')[1]['type'] == 'mmdet.Resize'
    replace_step(steps, 'Blur', dict(type='A'))
    insert_after(steps, 'Blur', dict(type='A'))
    remove_step(steps, 'Blur')
    assert steps == untouched


def test_steps_come_and_go_in_their_own_list():
    steps, a, b = pipeline(), dict(type='A'), dict(type='B')
    whole = ['LoadImage', 'Resize', 'RandomApply', 'RandomChoice', 'TransformBroadcaster', 'Resize', 'PackImageText']
    assert types(insert_before(steps, 'RandomChoice', a, b)) == [*whole[:3], 'A', 'B', *whole[3:]]
    assert types(insert_after(steps, 'PackImageText', a, b)) == [*whole, 'A', 'B']
    assert types(remove_step(steps, dict(type='Resize', scale=(224, 224)))) == [*whole[:5], 'PackImageText']
    assert types(replace_step(steps, 'LoadImage', a, b)) == ['A', 'B', *whole[1:]]
    assert insert_after(steps, 'RandomFlip', a)[3]['transforms'] == [
        [dict(type='RandomFlip'), a],
        [dict(type='mmdet.RandomCrop')],
    ]
    # a step that is no member of a list has no neighbours, but can be exchanged
    assert replace_step(steps, 'Pad', a)[4]['transforms'] == a
    for change in (lambda: insert_before(steps, 'Pad', a), lambda: replace_step(steps, 'Pad', a, b)):
        with pytest.raises(UsageError, match="'Pad' stands under 'transforms' by itself or in a tuple; put it into"):
            change()
    with pytest.raises(UsageError, match="the step 'A' stands by itself or in a tuple"):
        remove_step((a, b), 'A')


def test_alternatives_are_replaced_together():
    sizes = [dict(type='mmdet.Resize', scale=side) for side in (640, 800)]
    augment = [dict(type='TestTimeAug', transforms=[sizes, [dict(type='RandomFlip')]])]
    new = [dict(type='mmdet.Resize', scale=side) for side in (1, 2, 3)]
    assert replace_steps(augment, 'Resize', *new)[0]['transforms'] == [new, [dict(type='RandomFlip')]]
    for apart in ([sizes[0], dict(type='A'), sizes[1]], [sizes[0], dict(type='B', transforms=[sizes[1]])]):
        with pytest.raises(UsageError, match="the 2 steps 'Resize' do not follow each other in one list"):
            replace_steps(apart, 'Resize', *new)


def test_index_counts_the_members_of_the_list_alone():
    assert step_index(pipeline(), 'RandomChoice') == 3
    assert step_index(pipeline(), 'PackImageText') == 6
    with pytest.raises(UsageError, match="no step 'Pad' among florence_mm.LoadImage"):
        step_index(pipeline(), 'Pad')


BASE = """
train_pipeline = [dict(type='Load'), dict(type='mmcv.Resize', scale=8, keep_ratio=True), dict(type='Pack')]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
"""
CHILD = """
_base_ = './{}.py'
from florence_mm.config.pick import change_step, insert_after

train_pipeline = insert_after(change_step(_base_.train_pipeline, 'Resize', scale={}), 'Load', dict(type='{}'))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
"""


def test_a_config_file_that_changes_its_base(tmp_path):
    (tmp_path / 'base.py').write_text(BASE)
    (tmp_path / 'child.py').write_text(CHILD.format('base', 16, 'Flip'))
    (tmp_path / 'grandchild.py').write_text(CHILD.format('child', 32, 'Blur'))
    resize = dict(type='mmcv.Resize', scale=16, keep_ratio=True)
    steps = [dict(type='Load'), dict(type='Flip'), resize, dict(type='Pack')]
    # nothing but values, the imported functions are gone
    assert Config.fromfile(tmp_path / 'child.py').to_dict() == {
        'train_pipeline': steps,
        'train_dataloader': {'dataset': {'pipeline': steps}},
    }
    grandchild = Config.fromfile(tmp_path / 'grandchild.py')
    assert types(grandchild.train_dataloader.dataset.pipeline) == ['Load', 'Blur', 'Flip', 'Resize', 'Pack']
    assert find_step(grandchild.train_dataloader, 'Resize').scale == 32
    # what a run writes down can be read again
    grandchild.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').to_dict() == grandchild.to_dict()
    # the tools of other packages read it without knowing ours
    code = 'import sys; from mmengine.config import Config; print(len(Config.fromfile(sys.argv[1]).train_pipeline))'
    command = [sys.executable, '-c', code, str(tmp_path / 'child.py')]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == '4'


def test_an_error_in_a_config_file_names_file_and_line(tmp_path):
    (tmp_path / 'base.py').write_text(BASE)
    (tmp_path / 'child.py').write_text(CHILD.format('base', 16, 'Flip').replace("'Resize'", "'Resise'"))
    (tmp_path / 'grandchild.py').write_text("_base_ = './child.py'\n")
    with pytest.raises(UsageError) as error:
        load_config(tmp_path / 'grandchild.py')
    assert str(error.value) == (
        f"config {tmp_path / 'child.py'}, line 5: no step 'Resise' among Load, mmcv.Resize, Pack; did you mean "
        "'Resize'?"
    )
