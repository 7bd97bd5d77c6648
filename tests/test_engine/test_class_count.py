"""Heads and data must have equally many classes."""

from types import SimpleNamespace

import pytest
from mmengine.model import BaseModel, BaseTTAModel

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
