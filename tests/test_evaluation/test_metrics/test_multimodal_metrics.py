import importlib.util
import json
import os
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope

from florence_mm.evaluation import CaptionScores, VQAAccuracy
from florence_mm.evaluation.functional.captions import caption_words, cider_d, corpus_bleu, rouge_l
from florence_mm.evaluation.metrics.vqa import type_table
from florence_mm.registry import METRICS

WORKER = Path(__file__).with_name('multimodal_worker.py')
spec = importlib.util.spec_from_file_location('multimodal_worker', WORKER)
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)


def question(number, prediction, answers=None, kind='what', answer_type='other'):
    sample = {'question_id': number, 'pred_answer': prediction, 'question_type': kind, 'answer_type': answer_type}
    return sample if answers is None else {**sample, 'answers': answers}


def test_accuracy_by_hand(tmp_path):
    metric = METRICS.build(
        {'type': 'VQAAccuracy', 'outfile': str(tmp_path / 'new/answers.json'), 'per_question_type': True}
    )
    metric.dataset_meta = {'num_skipped': 4}
    metric.process(
        None,
        [
            question(30, 'red', ['red'] * 3 + ['blue'] * 7),  # 3 of 10 agree: 0.9
            question(10, 'yes', ['yes'] * 10, 'is there', 'yes/no'),  # 1
            question(20, '2', ['two', '3', *['4'] * 8], 'how many', 'number'),  # 1 of 10: 0.3
        ],
    )
    metric.process(None, [question(40, 'a dog', kind='unused'), question(11, 'no', ['yes'] * 10, 'is there', 'yes/no')])
    assert metric.evaluate(5) == pytest.approx(
        {
            'vqa/accuracy': (0.9 + 1 + 0.3 + 0) / 4,
            'vqa/yes_no': 0.5,
            'vqa/number': 0.3,
            'vqa/other': 0.9,
            'vqa/type_is_there': 0.5,
            'vqa/type_how_many': 0.3,
            'vqa/type_what': 0.9,
            'vqa/num_without_answers': 1,
            'vqa/num_skipped': 4,
        }
    )
    # what the server takes: all questions, answered as the model wrote it
    assert json.loads((tmp_path / 'new/answers.json').read_text()) == [
        {'question_id': 10, 'answer': 'yes'},
        {'question_id': 11, 'answer': 'no'},
        {'question_id': 20, 'answer': '2'},
        {'question_id': 30, 'answer': 'red'},
        {'question_id': 40, 'answer': 'a dog'},
    ]


def test_question_only_by_hand():
    metric = VQAAccuracy(question_only=True, table_rows=0)
    asked = [('how many?', ['2'] * 10), ('how many?', ['2'] * 3 + ['3'] * 7), ('is it?', ['no'] * 10)]
    samples = [{**question(i, 'red', answers), 'text': text} for i, (text, answers) in enumerate(asked)]
    metric.process(None, samples)
    # "2" to both questions of the first text: 1 and 0.9, better than "3": 0 and 1
    assert metric.evaluate(3)['vqa/question_only'] == pytest.approx((1 + 0.9 + 1) / 3)
    with pytest.raises(ValueError, match='no `text`, which question_only=True needs'):
        metric.process(None, [question(1, 'red', ['red'] * 10)])


def test_a_test_set_without_answers_has_no_accuracy():
    metric = VQAAccuracy()
    metric.process(None, [question(1, 'red'), question(2, 'blue')])
    assert metric.evaluate(2) == {'vqa/num_without_answers': 2}


def test_no_question_is_lost_to_another_with_its_id():
    def evaluate(size, *questions):
        metric = VQAAccuracy()
        metric.process(None, [{**question(id_, 'red', ['red'] * 10), 'source': source} for id_, source in questions])
        return metric.evaluate(size)

    first, second, other = (1, 'a.json, question 1'), (2, 'a.json, question 2'), (1, 'b.json, question 1')
    # processes with a stretch each, of which the first is filled up in the middle
    assert evaluate(2, first, first, second)['vqa/accuracy'] == 1
    with pytest.raises(ValueError, match=r'^a.json, question 1 and b.json, question 1 have one question_id, .* apart'):
        evaluate(3, first, second, other)
    # where samples do not say where they come from, or data sets share a file
    for questions in ([(1, None), (2, None), (1, None)], [first, second, first]):
        with pytest.raises(ValueError, match='answers to 2 different question_ids from a data set of 3 samples'):
            evaluate(3, *questions)
    with pytest.raises(ValueError, match='answers to 1 different question_ids from a data set of 2'):
        evaluate(2, first)


def test_labels_are_read_from_the_data_set():
    metric = VQAAccuracy(table_rows=0)
    metric.dataset_meta = {'answers': ('yes', 'no')}
    labelled = question(1, '', ['no'] * 10)
    del labelled['pred_answer']
    metric.process(None, [{**labelled, 'pred_label': torch.tensor([1]), 'pred_scores': torch.tensor([0.2, 0.7])}])
    assert metric.evaluate(1)['vqa/accuracy'] == 1
    with pytest.raises(ValueError, match='an answer out of 3, but the data set has 2'):
        metric.process(None, [{**labelled, 'pred_label': torch.tensor([1]), 'pred_scores': torch.zeros(3)}])
    with pytest.raises(ValueError, match='an answer out of 3, but the data set has 2'):
        metric.process(None, [{**labelled, 'pred_label': torch.tensor([2])}])
    metric.dataset_meta = None
    with pytest.raises(ValueError, match='the data set has no answers; give it `answer_file`'):
        metric.process(None, [{**labelled, 'pred_label': torch.tensor([1])}])
    with pytest.raises(ValueError, match='a sample has no `pred_answer`'):
        metric.process(None, [labelled])
    with pytest.raises(ValueError, match='file, question 7: 1 answer of annotators'):
        metric.process(None, [{**question(7, 'x', ['x']), 'source': 'file, question 7'}])
    with pytest.raises(ValueError, match='file, question 7 has no `question_id`'):
        metric.process(None, [{'source': 'file, question 7', 'pred_answer': 'x'}])
    with pytest.raises(ValueError, match=r"outfile='x.txt' of VQAAccuracy must end in .json"):
        VQAAccuracy(outfile='x.txt')


def test_table_of_types():
    assert type_table({'how many': [1.0, 0.0], 'is': [1.0], 'what is the': [0.25]}, 2).splitlines() == [
        'type         questions  accuracy',
        'what is the          1    0.2500',
        'how many             2    0.5000',
        'the lowest 2 of 3 types',
    ]


def test_captions_equal_their_functions(tmp_path):
    samples = worker.make_samples(20)
    metric = METRICS.build({'type': 'CaptionScores', 'outfile': str(tmp_path / 'captions.json')})
    metric.process(None, samples[:7])
    metric.process(None, samples[7:])
    scores = metric.evaluate(20)
    words = [caption_words(sample['pred_caption']) for sample in samples]
    wanted = [[caption_words(text) for text in sample['texts']] for sample in samples]
    bleu = corpus_bleu(words, wanted)
    assert scores == pytest.approx(
        {
            'caption/CIDEr-D': sum(cider_d(words, wanted)) / 20,
            'caption/BLEU-1': bleu[0],
            'caption/BLEU-2': bleu[1],
            'caption/BLEU-3': bleu[2],
            'caption/BLEU-4': bleu[3],
            'caption/ROUGE-L': sum(map(rouge_l, words, wanted)) / 20,
        }
    )
    assert 0 < scores['caption/BLEU-4'] < scores['caption/BLEU-1'] < 1
    written = json.loads((tmp_path / 'captions.json').read_text())
    assert written == [{'image_id': s['img_id'], 'caption': s['pred_caption']} for s in samples]


def test_a_column_of_the_manifest_is_the_image_id(tmp_path):
    metric = CaptionScores(outfile=str(tmp_path / 'x.json'))
    metric.process(None, [{'pred_caption': 'a', 'texts': ['a'], 'extra': {'image_id': 42}}])
    metric.evaluate(1)
    assert json.loads((tmp_path / 'x.json').read_text()) == [{'image_id': 42, 'caption': 'a'}]
    with pytest.raises(ValueError, match='neither `img_id` nor `image_id`'):
        metric.process(None, [{'pred_caption': 'a', 'texts': ['a']}])
    with pytest.raises(ValueError, match='list, line 2 has no `texts`, which CaptionScores needs'):
        metric.process(None, [{'pred_caption': 'a', 'source': 'list, line 2'}])
    with pytest.raises(ValueError, match='no `pred_caption`'):
        metric.process(None, [{'texts': ['a']}])


def test_names_under_a_hostile_scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        assert type(METRICS.build({'type': 'VQAAccuracy'})) is VQAAccuracy


def test_two_processes_equal_one(two_processes, tmp_path):
    # 31 samples: the second process gets one twice, which must not count
    expected = worker.evaluate(31, tmp_path / 'one')
    assert expected['vqa/num_without_answers'] == 5 and 0 < expected['vqa/accuracy'] < 1
    two_processes(
        lambda: (tmp_path / os.environ['RANK']).write_text(json.dumps(worker.evaluate(31, tmp_path / 'two', 'pytorch')))
    )
    for rank in '01':
        assert json.loads((tmp_path / rank).read_text()) == expected
    for name in ('answers.json', 'captions.json'):
        assert (tmp_path / 'two' / name).read_bytes() == (tmp_path / 'one' / name).read_bytes()
