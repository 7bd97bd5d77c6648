import pytest
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement

from florence_mm.evaluation import PhraseRecall, PolygonIoU, ReferringAccuracy, TextAccuracy, WrittenBoxes
from florence_mm.language.regions import Region, Target
from florence_mm.registry import METRICS

LEFT, RIGHT, FAR = (0.0, 0.0, 0.25, 0.5), (0.25, 0.0, 0.5, 0.5), (0.8, 0.8, 0.9, 0.9)
SQUARE, TOP = ((0, 0), (1, 0), (1, 1), (0, 1)), ((0, 0), (1, 0), (1, 0.5), (0, 0.5))


def sample(task, predicted, annotated, shape=(40, 60, 3)):
    fields = {'task': task, 'pred_target': predicted, 'gt_target': annotated, 'ori_shape': shape, 'source': 'row 3'}
    return BaseDataElement(metainfo={'unused': 1}, **fields)


def boxes(text, *four, score=None):
    return Target(regions=(Region(text, boxes=four, score=score),))


def outline(*polygons):
    return Target(regions=(Region(polygons=polygons),))


SAMPLES = [
    sample('region_category', Target('Seven.'), Target('seven')),
    sample('<REGION_TO_CATEGORY>', Target('six'), Target('seven')),
    # the best box by score, whatever was written first
    sample(
        'phrase_grounding',
        Target(regions=(Region('a', (LEFT,), score=0.1), Region('b', (RIGHT,), score=0.3))),
        boxes('a', RIGHT),
    ),
    sample('phrase_grounding', boxes('a', LEFT, RIGHT), boxes('a', RIGHT)),
    sample('phrase_grounding', Target(), boxes('a', RIGHT)),
    sample('phrase_grounding', boxes('a', FAR), Target(regions=(Region('a', (FAR,)), Region('scenery')))),
    sample(
        'referring_segmentation',
        Target(regions=(Region(polygons=(SQUARE,)),)),
        Target(regions=(Region(polygons=(TOP,)),)),
    ),
    sample('region_segmentation', Target(), Target(regions=(Region(polygons=(SQUARE,)),)), (10, 10)),
    sample('detection', boxes('Dog', LEFT, score=0.5), boxes('dog', LEFT, RIGHT)),
    sample('detection', boxes('cat', LEFT, score=0.9), boxes('dog', LEFT)),
]
METRICS_OF_TASKS = [TextAccuracy, ReferringAccuracy, PhraseRecall, PolygonIoU, WrittenBoxes]


def test_a_mixture_of_tasks_by_hand():
    evaluator = Evaluator([METRICS.build({'type': metric.__name__}) for metric in METRICS_OF_TASKS])
    evaluator.dataset_meta = {}
    for start in range(0, len(SAMPLES), 3):
        evaluator.process(SAMPLES[start : start + 3])
    # processes gather lists of equal lengths
    assert all(len(metric.results) == len(SAMPLES) for metric in evaluator.metrics)
    scores = evaluator.evaluate(len(SAMPLES))
    assert {key: value for key, value in scores.items() if not key.startswith('written/A')} == pytest.approx(
        {
            'answer/accuracy': 0.5,
            'rec/accuracy': 2 / 4,
            'grounding/R@1': 1 / 4,  # of the first sample the phrase b is no answer, and a's box is wrong
            'grounding/R@5': 2 / 4,
            'grounding/R@10': 2 / 4,
            'segmentation/mIoU': 0.25,
            'segmentation/oIoU': 1200 / (2400 + 100),
            'written/precision': 0.5,
            'written/recall': 1 / 3,
            'written/F1': 2 / 5,
            'written/found': 2 / 3,
        }
    )
    # one of three dogs is found, with precision 1 up to a recall of 1/3
    assert scores['written/AP'] == scores['written/AP50'] == pytest.approx(34 / 101)
    assert scores['written/AP_l'] == -1


def test_only_the_tasks_that_are_named():
    metric = ReferringAccuracy(tasks=['<OD>', 'phrase_grounding'], threshold=1.0)
    metric.process(None, [one.to_dict() for one in SAMPLES])
    assert metric.evaluate(len(SAMPLES)) == {'rec/accuracy': 4 / 6}
    strict = PhraseRecall(topk=[1, 2], protocol='merged')
    strict.process(
        None, [sample('phrase_grounding', boxes('a', LEFT, (0, 0, 0.5, 0.5)), boxes('a', LEFT, FAR)).to_dict()]
    )
    assert strict.evaluate(1) == {'grounding/R@1': 0, 'grounding/R@2': 0}
    skipped = TextAccuracy()
    skipped.dataset_meta = {'num_skipped': 2}
    skipped.process(None, [SAMPLES[0].to_dict()])
    assert skipped.evaluate(1) == {'answer/accuracy': 1.0, 'answer/num_skipped': 2}


def test_no_sample_of_a_task_is_a_warning(monkeypatch):
    logged = []
    monkeypatch.setattr(
        'florence_mm.evaluation.metrics.tasks.print_log', lambda *args, **kwargs: logged.append(args[0])
    )
    metric = PolygonIoU()
    metric.process(None, [SAMPLES[0].to_dict()])
    assert metric.evaluate(1) == {}
    expected = 'PolygonIoU got no sample of referring_segmentation, region_segmentation and has no results'
    assert logged == [expected]


def test_errors():
    for kwargs, message in (
        ({'type': 'TextAccuracy', 'tasks': []}, r'tasks of TextAccuracy is \[\]; give a list of at least one task'),
        ({'type': 'TextAccuracy', 'tasks': 'caption'}, "tasks of TextAccuracy is 'caption'; give a list"),
        ({'type': 'PolygonIoU', 'tasks': ['ocrr']}, "there is no task 'ocrr'; did you mean 'ocr'"),
        ({'type': 'PhraseRecall', 'protocol': 'all'}, "protocol of PhraseRecall is 'all'; give 'any' or 'merged'"),
        ({'type': 'PhraseRecall', 'topk': [0]}, r'topk=\[0\] of PhraseRecall must be positive numbers'),
        ({'type': 'ReferringAccuracy', 'threshold': 0}, 'threshold of ReferringAccuracy is 0; give an IoU above 0'),
    ):
        with pytest.raises(ValueError, match=message):
            METRICS.build(kwargs)
    lacking = SAMPLES[-1].to_dict()
    for key in ('ori_shape', 'pred_target', 'gt_target', 'task'):
        del lacking[key]
        with pytest.raises(ValueError, match=f'row 3 has no `{key}`, which WrittenBoxes needs; evaluate a model that'):
            WrittenBoxes().process(None, [lacking])


def test_any_of_several_answers_is_right():
    metric = TextAccuracy(tasks=['region_description'])
    for text in ('The Dog.', 'the left dog', 'a cat'):
        one = sample('region_description', Target(text), Target('the left dog'))
        one.set_field(['the left dog', 'the dog'], 'texts')
        metric.process(None, [one.to_dict()])
    assert metric.results == [True, True, False]
