import pytest
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement

from florence_mm.evaluation.metrics import CaptionScores, MovedRegions
from florence_mm.language.regions import Target


def sample(picture, predicted, annotated, task='region_category'):
    fields = {'img_path': picture, 'task': task, 'texts': [annotated]}
    return BaseDataElement(pred_target=Target(predicted), gt_target=Target(annotated), **fields)


SAMPLES = [
    # three pairs, of which the equal fives are none
    sample('a', 'five', 'five'),
    sample('a', 'Six.', 'six'),
    sample('a', 'six', 'five'),
    # annotated answers differ, those of the model do not
    sample('b', 'two', 'one'),
    sample('b', 'two', 'Two'),
    sample('b', 'three', 'three'),
    # regions of other pictures, and other tasks
    sample('c', 'one', 'nine'),
    sample('a', 'a five and a six', 'a five and a six', 'caption'),
]


def test_pairs_of_regions_of_a_picture_by_hand():
    evaluator = Evaluator([MovedRegions()])
    evaluator.dataset_meta = {}
    evaluator.process(SAMPLES[:4])
    evaluator.process(SAMPLES[4:])
    # a: 'five' and 'six' differ, 'six' and 'six' do not; b: 'two' and 'two' do not, 'three' and either 'two' do
    assert evaluator.evaluate(8) == {'moved/changed': pytest.approx(3 / 5), 'moved/pairs': 5}


def test_captions_of_a_mixture_of_tasks_are_scored_alone():
    evaluator = Evaluator([CaptionScores(tasks=['<CAPTION>'])])
    evaluator.dataset_meta = {}
    evaluator.process(SAMPLES)
    assert evaluator.evaluate(8)['caption/BLEU-4'] == pytest.approx(1)
    alone = Evaluator([CaptionScores(tasks=['caption'])])
    alone.dataset_meta = {}
    alone.process(SAMPLES[:2])
    assert alone.evaluate(2) == {}
    with pytest.raises(ValueError, match="tasks of CaptionScores is 'caption'; give a list"):
        CaptionScores(tasks='caption')
