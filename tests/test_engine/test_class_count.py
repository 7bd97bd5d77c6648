"""Heads and data must have equally many classes."""

from types import SimpleNamespace

import pytest
from mmengine.model import BaseModel, BaseTTAModel
from mmengine.runner import BaseLoop

from florence_mm.engine.data_classes import check_class_order, check_same_order
from florence_mm.engine.hooks import ClassCountHook
from florence_mm.errors import UsageError


class Model(BaseModel):
    """With one attribute, a head of so many classes."""

    def __init__(self, head, num_classes):
        super().__init__()
        setattr(self, head, SimpleNamespace(num_classes=num_classes))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return inputs


class Wrapper(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return data_samples_list[0]


def runner(head_classes, classes, wrapped=False):
    model = Model('bbox_head', head_classes)
    metainfo = {} if classes is None else {'classes': classes}
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo=metainfo, ann_file='train.json'))
    model = Wrapper(model) if wrapped else model
    return SimpleNamespace(model=model, train_dataloader=loader, val_dataloader=loader, test_dataloader=loader)


@pytest.mark.parametrize('stage', ['before_train', 'before_val', 'before_test'])
@pytest.mark.parametrize('wrapped', [False, True])
def test_another_number_of_classes_ends_the_run_with_both_numbers(stage, wrapped):
    with pytest.raises(UsageError, match='train.json has 2 classes, but the head of the detector 3; set'):
        getattr(ClassCountHook(), stage)(runner(3, ('cat', 'dog'), wrapped))


@pytest.mark.parametrize('given', [(2, ('cat', 'dog')), (3, None), (None, ('cat',))])
def test_equal_or_unknown_numbers_pass(given):
    ClassCountHook().before_train(runner(*given))


def video_list(largest_label=(0, 0), **metainfo):
    return SimpleNamespace(metainfo=metainfo, ann_file='train.txt', largest_label=largest_label)


def recognizer(head_classes, dataset=None, **settings):
    model = Wrapper(Model('cls_head', head_classes))
    return SimpleNamespace(model=model, train_dataloader=SimpleNamespace(dataset=dataset or video_list(**settings)))


def test_a_recognizer_is_compared_with_names_or_with_the_largest_label():
    hook = ClassCountHook()
    with pytest.raises(UsageError, match='train.txt has 2 classes, but the head of the recognizer 3; set model.cls_h'):
        hook.before_train(recognizer(3, classes=('left', 'right')))
    with pytest.raises(
        UsageError, match='train.txt, line 7: class 9 is outside 0 to 8, the classes of the recogn.*set'
    ):
        hook.before_train(recognizer(9, largest_label=(9, 7)))
    hook.before_train(recognizer(9, largest_label=(8, 7)))
    hook.before_train(recognizer(2, classes=('left', 'right'), largest_label=(1, 1)))


def test_each_set_of_a_concatenation_is_checked():
    fine, beyond = video_list((8, 1)), video_list((9, 7))
    joined = SimpleNamespace(datasets=[fine, SimpleNamespace(dataset=beyond)], metainfo={})
    with pytest.raises(UsageError, match='train.txt, line 7: class 9 is outside 0 to 8'):
        ClassCountHook().before_train(recognizer(9, joined))
    ClassCountHook().before_train(recognizer(10, joined))


class Loop(BaseLoop):
    def __init__(self, classes):
        self.dataloader = SimpleNamespace(dataset=SimpleNamespace(metainfo={'classes': classes}, ann_file='data.json'))

    def run(self):
        return None


def loaded_by(head='bbox_head', resume=False, **loops):
    loops = {name: Loop(classes) for name, classes in loops.items()}
    names = {f'_{name}_loop': loops.get(name, {'type': 'not built'}) for name in ('train', 'val', 'test')}
    return SimpleNamespace(model=Wrapper(Model(head, 3)), _resume=resume, **names)


TRAINED = {'meta': {'dataset_meta': {'classes': ('cat', 'dog', 'emu')}}}
OTHER_ORDER = ('cat', 'emu', 'dog')


@pytest.mark.parametrize('runs', [{'test': OTHER_ORDER}, {'val': OTHER_ORDER}, {'train': OTHER_ORDER, 'resume': True}])
def test_classes_in_another_order_than_the_head_was_trained_with(runs):
    sentence = "data.json has the class 'emu' under index 1, but a.pth was trained with it under index 2"
    with pytest.raises(UsageError, match=sentence):
        check_class_order(loaded_by(**runs), TRAINED, 'a.pth')


def test_classes_that_the_head_can_serve():
    for runs in ({'test': ('cat', 'dog', 'emu')}, {'test': ('cat', 'hound', 'emu')}, {'train': OTHER_ORDER}):
        check_class_order(loaded_by(**runs), TRAINED, 'a.pth')
    # a model that takes class names as text has no such head, and files may have no names
    check_class_order(loaded_by('text_head', test=OTHER_ORDER), TRAINED, 'a.pth')
    for checkpoint in ({}, {'meta': {}}, {'meta': {'dataset_meta': [{}]}}):
        check_class_order(loaded_by(test=OTHER_ORDER), checkpoint, 'a.pth')
    older = {'meta': {'dataset_meta': {'CLASSES': ['cat', 'dog', 'emu']}}}
    with pytest.raises(UsageError, match='a.pth was trained with it'):
        check_class_order(loaded_by(test=OTHER_ORDER), older, 'a.pth')


def named(*classes):
    return SimpleNamespace(metainfo={'classes': classes}, ann_file='coco.json')


def test_validation_has_the_order_of_the_training():
    right, other, model = named('cat', 'dog', 'emu'), named('emu', 'cat', 'dog'), Wrapper(Model('bbox_head', 3))
    sentence = (
        r"^val_dataloader.dataset: coco.json has the class 'emu' under index 0, but train_dataloader has it under "
        r"index 2; give the data set the classes in that order: \['cat', 'dog', 'emu'\]$"
    )
    for scored in (other, SimpleNamespace(datasets=[right, other])):
        with pytest.raises(UsageError, match=sentence):
            check_same_order(model, {'train_dataloader': right, 'val_dataloader': scored})
    with pytest.raises(UsageError, match="^train_dataloader.dataset: coco.json has the class 'emu' under index 0"):
        check_same_order(model, {'train_dataloader': SimpleNamespace(datasets=[right, other])})


def test_orders_that_cannot_differ():
    right, other = named('cat', 'dog', 'emu'), named('emu', 'cat', 'dog')
    renamed, nameless = named('cat', 'hound', 'emu'), SimpleNamespace(metainfo={}, ann_file='val.txt')
    model = Model('cls_head', 3)
    for scored in (right, renamed, nameless, SimpleNamespace(dataset=right)):
        check_same_order(model, {'train_dataloader': right, 'val_dataloader': scored})
    check_same_order(model, {'train_dataloader': nameless, 'val_dataloader': other})
    # class names are texts to this model
    check_same_order(Model('text_head', 3), {'train_dataloader': right, 'val_dataloader': other})
