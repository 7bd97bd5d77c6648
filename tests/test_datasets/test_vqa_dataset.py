import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from florence_mm.datasets import VQADataset
from florence_mm.errors import DataError
from florence_mm.formats.vqa import answer_vocabulary
from florence_mm.language.answers import read_answers
from florence_mm.registry import DATASETS
from florence_mm.smoke.pictures import write_pictures

TOOL = Path(__file__).parents[2] / 'tools/dataset_converters/build_answers.py'
PACK = [{'type': 'LoadImage'}, {'type': 'PackVQA'}]


def entry(number, image, said, **more):
    answers = [{'answer': text, 'answer_confidence': 'yes', 'answer_id': i} for i, text in enumerate(said, 1)]
    ids = {'question_id': number, 'image_id': image}
    return {**ids, 'answers': answers, 'question_type': 'what', 'answer_type': 'other', **more}


@pytest.fixture
def root(tmp_path):
    """Three questions about two pictures, as VQAv2 has them."""
    for name in write_pictures(tmp_path / 'images', 2, (20, 24)):
        (tmp_path / 'images' / name).rename(tmp_path / f'images/COCO_{int(name[0]):012d}.png')
    questions = [(7, 1, 'what colour?'), (3, 0, 'how many?'), (4, 1, 'is it?')]
    questions = [{'question_id': q, 'image_id': i, 'question': text} for q, i, text in questions]
    annotations = [
        entry(3, 0, ['two'] * 6 + ['3'] * 3 + ['dog'], answer_type='number'),
        entry(4, 1, ['Yes.'] * 10),
        entry(7, 1, ['red'] * 2 + ['grey'] * 8),
    ]
    write(tmp_path, questions=questions, annotations=annotations)
    (tmp_path / 'answers.txt').write_text('yes\n3\nred\n2\n')
    return tmp_path


def write(root, **lists):
    for name, content in lists.items():
        (root / f'{name}.json').write_text(json.dumps({name: content}))


def content(root, name):
    return json.loads((root / f'{name}.json').read_text())[name]


def load(root, **more):
    files = {'question_file': 'questions.json', 'ann_file': 'annotations.json', 'answer_file': 'answers.txt'}
    config = {'data_root': str(root), 'data_prefix': 'images', 'img_pattern': 'COCO_{:012d}.png', 'pipeline': PACK}
    return DATASETS.build({'type': 'VQADataset', **files, **config, **more})


def test_samples_by_hand(root):
    dataset = load(root)
    assert type(dataset) is VQADataset and len(dataset) == 3
    assert dataset.metainfo['answers'] == ('yes', '3', 'red', '2')
    packed = [dataset[i] for i in range(3)]
    samples = [item['data_samples'] for item in packed]
    assert [sample.question_id for sample in samples] == [7, 3, 4]
    assert [sample.text for sample in samples] == ['what colour?', 'how many?', 'is it?']
    assert [sample.img_id for sample in samples] == [1, 0, 1]
    assert samples[1].answers == ['two'] * 6 + ['3'] * 3 + ['dog']
    assert samples[1].answer_type == 'number' and samples[1].question_type == 'what'
    # 6 of 10 said two, 3 three; a dog is not in the vocabulary
    assert samples[1].answer_labels.tolist() == [3, 1] and samples[1].answer_labels.dtype == torch.int64
    torch.testing.assert_close(samples[1].answer_scores, torch.tensor([1.0, 0.9]))
    assert samples[0].answer_labels.tolist() == [2]
    torch.testing.assert_close(samples[0].answer_scores, torch.tensor([0.6]))
    assert packed[0]['inputs'].shape == (3, 20, 24) and packed[0]['inputs'].dtype == torch.uint8
    # the picture of its image_id: the first one is bright in blue, the second one in green
    assert packed[0]['inputs'][1, 0, 0] == 255 and packed[1]['inputs'][2, 0, 0] == 255
    assert dataset.get_data_info(0)['source'].endswith('questions.json, question 7')


def test_log_says_what_is_known(root, monkeypatch):
    said = []
    monkeypatch.setattr('florence_mm.datasets.vqa.print_log', lambda text, **kwargs: said.append(text))
    load(root)
    # 9 of "how many?", 10 of "is it?", 2 of "what colour?"
    assert said == [f'{root}/annotations.json: 21 of 30 answers (70.0%) are in the vocabulary of 4']


def test_answers_outside_the_vocabulary(root, monkeypatch):
    said = []
    monkeypatch.setattr('florence_mm.datasets.vqa.print_log', lambda text, **kwargs: said.append(text))
    (root / 'answers.txt').write_text('yes\n2\n')
    dataset = load(root)
    # kept, with nothing to gain
    assert len(dataset) == 3 and dataset[0]['data_samples'].answer_labels.shape == (0,)
    assert any('1 of 3 questions have no answer in the vocabulary and are kept' in text for text in said)
    said.clear()
    dataset = load(root, drop_unknown=True)
    assert [dataset.get_data_info(i)['question_id'] for i in range(len(dataset))] == [3, 4]
    assert any('1 of 3 questions have no answer in the vocabulary and are left out' in text for text in said)
    with pytest.raises(ValueError, match='drop_unknown is for training'):
        load(root, drop_unknown=True, test_mode=True)


def test_a_test_set_without_answers(root):
    dataset = load(root, ann_file='', test_mode=True)
    sample = dataset[1]['data_samples']
    assert len(dataset) == 3 and 'answers' not in sample and 'answer_labels' not in sample
    assert dataset.metainfo['answers'] == ('yes', '3', 'red', '2')
    # nor is a vocabulary needed where text is written
    assert 'answer_labels' not in load(root, answer_file='', test_mode=True)[0]['data_samples']
    with pytest.raises(ValueError, match='needs `ann_file` for training; without it'):
        load(root, ann_file='')


def test_training_without_a_vocabulary(root):
    dataset = load(root, answer_file='')
    samples = [dataset[number]['data_samples'] for number in range(3)]
    assert [sample.answers for sample in samples] == [
        ['red'] * 2 + ['grey'] * 8,
        ['two'] * 6 + ['3'] * 3 + ['dog'],
        ['Yes.'] * 10,
    ]
    assert not any('answer_labels' in sample for sample in samples) and 'answers' not in dataset.metainfo
    with pytest.raises(ValueError, match='drop_unknown is about answers of a vocabulary; give `answer_file` too'):
        load(root, answer_file='', drop_unknown=True)


def test_slice_of_pictures(root):
    # pictures in the order in which the questions name them: 1, 0
    assert [load(root, image_slice=(None, -1)).get_data_info(i)['question_id'] for i in range(2)] == [7, 4]
    held_out = load(root, image_slice=(-1, None))
    assert len(held_out) == 1 and held_out.get_data_info(0)['question_id'] == 3


def test_exchanged_pictures(root):
    # picture 1 is named first, then 0; what is asked and answered stays
    usual, exchanged = load(root, test_mode=True), load(root, test_mode=True, exchange_pictures=True)
    shown = [[Path(data.get_data_info(i)['img_path']).stem[-1] for i in range(3)] for data in (usual, exchanged)]
    assert shown == [['1', '0', '1'], ['0', '1', '0']]
    for i in range(3):
        first, second = usual.get_data_info(i), exchanged.get_data_info(i)
        assert all(first[key] == second[key] for key in ('text', 'answers', 'question_id', 'img_id'))
    with pytest.raises(ValueError, match='exchange_pictures is a control for tests'):
        load(root, exchange_pictures=True)
    with pytest.raises(DataError, match='asks about 1 images, and exchange_pictures needs two'):
        load(root, test_mode=True, exchange_pictures=True, image_slice=(0, 1))


def test_exchanged_pictures_are_the_next_ones_and_the_last_asks_about_the_first(root):
    asked = [(1, 5), (2, 9), (3, 5), (4, 2), (5, 9)]  # pictures 5, 9 and 2, as they are first named
    write(root, questions=[{'question_id': q, 'image_id': i, 'question': 'what?'} for q, i in asked])
    arguments = {'ann_file': '', 'answer_file': '', 'test_mode': True, 'check_files': False, 'img_pattern': '{}.png'}
    data = load(root, exchange_pictures=True, **arguments)
    rows = [data.get_data_info(i) for i in range(5)]
    assert [row['question_id'] for row in rows] == [1, 2, 3, 4, 5]
    assert [Path(row['img_path']).stem for row in rows] == ['9', '2', '9', '5', '2']


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda item: item.pop('answers'), 'question 4: the list `answers` is missing'),
        (lambda item: item.update(answers=[]), 'question 4: the list `answers` is empty'),
        (lambda item: item['answers'].append({'answer': 5}), r'question 4: answers\[10\] has no text, but 5'),
        (lambda item: item.update(image_id=0), 'question 4: its annotation is of image 0, the question of 1'),
        (lambda item: item.update(question_id=5), 'question 4: .*annotations.json has no annotation of it'),
    ],
)
def test_bad_annotations(root, change, message):
    annotations = content(root, 'annotations')
    change(annotations[1])
    write(root, annotations=annotations)
    with pytest.raises(DataError, match=message):
        load(root)
    dataset = load(root, skip_bad={'max': 1})
    assert [dataset.get_data_info(i)['question_id'] for i in range(len(dataset))] == [7, 3]
    assert dataset.num_skipped == 1
    with pytest.raises(DataError, match='1 rows are unusable, more than the 0'):
        load(root, skip_bad={'max': 0})


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda item: item.pop('image_id'), 'question 3: no `image_id`'),
        (lambda item: item.update(image_id=9), r'question 3: the image .*COCO_000000000009.png is missing'),
        (lambda item: item.update(image_id='a'), "question 3: image_id 'a' does not fit into img_pattern"),
        (lambda item: item.update(image_id=None), 'question 3: image_id None is neither a number nor a text'),
        (lambda item: item.update(image_id=[0]), r'question 3: image_id \[0\] is neither'),
        (lambda item: item.update(question=' '), "question 3: the question ' ' is empty"),
        (lambda item: item.pop('question'), 'question 3: the question must be a string, but is None'),
    ],
)
def test_bad_questions(root, change, message):
    questions = content(root, 'questions')
    change(questions[1])
    write(root, questions=questions)
    with pytest.raises(DataError, match=message):
        load(root)
    # it has an annotation of image 0; that of the question is what is wrong
    assert len(load(root, skip_bad={'max': 1})) == 2


def test_files_that_cannot_be_used(root):
    questions = content(root, 'questions')
    write(root, questions=[*questions, questions[0]])
    with pytest.raises(DataError, match='questions.json: the question_id 7 occurs twice'):
        load(root, skip_bad={'max': 9})
    write(root, questions=[{'question_id': '7'}])
    with pytest.raises(DataError, match=r"questions\[0\] has question_id '7'; expected a whole number"):
        load(root)
    write(root, questions=[3])
    with pytest.raises(DataError, match=r'questions\[0\] is a int; expected an object'):
        load(root)
    (root / 'questions.json').write_text('{"questions": ')
    with pytest.raises(DataError, match='questions.json cannot be read as JSON'):
        load(root)
    (root / 'questions.json').write_text('{"question": []}')
    with pytest.raises(DataError, match="has no list 'questions'"):
        load(root)
    with pytest.raises(FileNotFoundError, match='no file .*other.json; give the file of questions'):
        load(root, question_file='other.json')
    write(root, questions=questions)
    (root / 'answers.txt').write_text('yes\ntwo\n2\n')
    with pytest.raises(DataError, match="'2' is the same answer as 'two' after normalisation"):
        load(root)
    (root / 'answers.txt').write_text('\n')
    with pytest.raises(DataError, match=r'answers.txt is empty; write one answer a line'):
        load(root)
    with pytest.raises(FileNotFoundError, match='no vocabulary of answers .*build_answers.py'):
        load(root, answer_file='none.txt')
    with pytest.raises(ValueError, match="img_pattern='x.jpg' must be a file name with a place for the image_id"):
        load(root, img_pattern='x.jpg')


def test_unreadable_pictures(root):
    picture = root / 'images/COCO_000000000001.png'
    picture.write_bytes(picture.read_bytes()[:40])
    with pytest.raises(DataError, match='questions.json, question 7: the image .* is cut off'):
        load(root)[0]
    # in training the next question takes the place, in tests both questions about the picture are left out
    assert load(root, skip_bad={'max': 2})[0]['data_samples'].question_id == 3
    dataset = load(root, skip_bad={'max': 2}, test_mode=True)
    assert len(dataset) == 1 and dataset.metainfo['num_skipped'] == 2


def test_annotations_without_question_are_counted(root, monkeypatch):
    said = []
    monkeypatch.setattr('florence_mm.datasets.vqa.print_log', lambda text, **kwargs: said.append(text))
    write(root, questions=content(root, 'questions')[:2])
    assert len(load(root)) == 2
    assert any('1 annotations belong to no question and are not used' in text for text in said)


def test_vocabulary_by_hand():
    def item(answer):
        return {'question_id': 1, 'multiple_choice_answer': answer}

    annotations = [item(text) for text in ['yes'] * 9 + ['Two', '2'] * 5 + ['a dog'] * 9 + ['cat'] * 8 + ['!'] * 20]
    # frequent ones first, equally frequent ones by alphabet, eight are too few, nothing is no answer
    assert answer_vocabulary(annotations) == ['2', 'dog', 'yes']
    assert answer_vocabulary(annotations[::-1], min_count=8) == ['2', 'dog', 'yes', 'cat']
    with pytest.raises(ValueError, match='no answer is the main answer of 99 questions'):
        answer_vocabulary(annotations, 99)
    with pytest.raises(ValueError, match='question 5: multiple_choice_answer is None'):
        answer_vocabulary([{'question_id': 5}])


def test_vocabulary_command(root, monkeypatch, capsys):
    annotations = content(root, 'annotations')
    for item, answer in zip(annotations, ('two', 'yes', 'Grey.'), strict=True):
        item['multiple_choice_answer'] = answer
    write(root, annotations=annotations)
    out = root / 'new/answers.txt'
    arguments = [str(TOOL), str(root / 'annotations.json'), '--out', str(out), '--min-count', '1']
    monkeypatch.setattr(sys, 'argv', arguments)
    runpy.run_path(str(TOOL), run_name='__main__')
    assert read_answers(out) == ['2', 'grey', 'yes']
    # 6 of ten said two, all yes, 8 grey
    assert (
        '3 answers of 3 questions; 80.0% of what annotators said is among them, 0 questions' in capsys.readouterr().out
    )
    monkeypatch.setattr(sys, 'argv', [*arguments[:-1], '5'])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(TOOL), run_name='__main__')
    assert stopped.value.code == 2 and 'no answer is the main answer of 5 questions' in capsys.readouterr().err


def test_vocabulary_of_several_files_counts_each_annotation_once(root, monkeypatch, capsys):
    paths = [root / name for name in ('train.json', 'val.json', 'copy.json')]

    def put(path, *annotations):
        path.write_text(json.dumps({'annotations': annotations}))

    def run(*files):
        arguments = [str(TOOL), *map(str, files), '--out', str(root / 'vocabulary.txt'), '--min-count', '1']
        monkeypatch.setattr(sys, 'argv', arguments)
        runpy.run_path(str(TOOL), run_name='__main__')

    def refusal(*files):
        with pytest.raises(SystemExit) as stopped:
            run(*files)
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and error.count('\n') == 1 and not (root / 'vocabulary.txt').exists()
        return error

    two = entry(1, 0, ['2'] * 10, multiple_choice_answer='2')
    put(paths[0], two)
    put(paths[2], entry(5, 0, ['no'] * 3, multiple_choice_answer='no'), two)
    put(paths[1], entry(2, 1, ['a', 3]))
    assert f'{paths[0]}: the annotation of question 1 is also in {paths[0]}; give' in refusal(paths[0], paths[0])
    assert f'{paths[2]}: the annotation of question 1 is also in {paths[0]}; give' in refusal(paths[0], paths[2])
    assert f'{paths[1]}, question 2: answers[1] has no text' in refusal(*paths[:2])
    put(paths[1], entry(2, 1, ['a', 'b']))
    assert f'{paths[1]}, question 2: multiple_choice_answer is None' in refusal(*paths[:2])
    put(paths[1], two, two)
    assert 'val.json: the question_id 1 occurs twice' in refusal(paths[1])
    # another data set that counts from 1
    put(paths[1], entry(1, 9, ['red'] * 10, multiple_choice_answer='red'))
    run(*paths[:2])
    assert read_answers(root / 'vocabulary.txt') == ['2', 'red']
    assert 'answers of 2 questions' in capsys.readouterr().out


def test_usage_in_the_tools_docstring_continues_its_lines():
    usage = runpy.run_path(str(TOOL))['__doc__']
    assert 'annotations.json \\\n' in usage


def test_pickled_rows_are_equal_in_workers(root):
    dataset = load(root)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=1)
    for own, loaded in zip((dataset[i] for i in range(3)), loader, strict=True):
        assert torch.equal(own['inputs'], loaded['inputs'])
        assert np.array_equal(own['data_samples'].answer_scores, loaded['data_samples'].answer_scores)
