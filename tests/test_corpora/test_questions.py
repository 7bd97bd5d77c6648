import json
import runpy
import sys
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from florence_mm.corpora.questions import (
    KINDS,
    Question,
    QuestionOptions,
    choose_questions,
    draw_annotator_answers,
    make_questions,
    possible_questions,
    write_questions,
)
from florence_mm.corpora.scene_captions import make_captions
from florence_mm.corpora.scene_facts import Scene, SceneDigit, colour_name, read_scenes
from florence_mm.corpora.scenes import SceneOptions, write_scenes
from florence_mm.datasets import ImageTextManifest, VQADataset
from florence_mm.errors import DataError
from florence_mm.evaluation.functional.vqa import best_constant_answers, vqa_accuracy
from florence_mm.language.answers import normalize_answer

TOOL = Path(__file__).parents[2] / 'tools/dataset_converters/prepare_questions.py'
NAMES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')


def scene(*digits, image_id=0):
    """A scene of 100x100 pixels of digits ``(label, x, width, height, colour)``."""
    items = [SceneDigit(label, (x, 10, width, height), colour) for label, x, width, height, colour in digits]
    return Scene(image_id, '000000.png', 100, 100, tuple(sorted(items, key=lambda item: item.centre)))


def asked(of):
    return {question.text: (question.answer, question.near) for question in possible_questions(of)}


def test_questions_by_hand():
    found = asked(scene((5, 10, 20, 40, 'red'), (2, 40, 20, 30, None), (5, 70, 20, 20, 'blue'), (8, 65, 8, 20, 'cyan')))
    assert found['how many digits are there?'] == ('4', ('3', '5'))
    assert found['which digit is leftmost?'] == ('5', ('2',))
    assert found['which digit is largest?'] == ('5', ('2',))
    assert found['what is the sum of the leftmost and the rightmost digit?'] == ('10', ('9', '11'))
    assert found['is there a five?'] == ('yes', ('no',))
    assert found['is there an eight?'] == ('yes', ('no',))
    assert found['is there a seven?'] == ('no', ('yes',))
    # two fives have two colours, and the colour of the two has no name
    assert found['what colour is the eight?'] == ('cyan', ('green', 'blue'))
    assert len(found) == 4 + 10 + 1


def test_questions_about_few_digits():
    nothing = asked(scene())
    assert nothing.pop('how many digits are there?') == ('0', ('1',))
    assert set(nothing.values()) == {('no', ('yes',))} and len(nothing) == 10
    one = asked(scene((7, 10, 20, 30, 'red')))
    assert one['how many digits are there?'] == ('1', ('0', '2'))
    # the leftmost of one is no question
    assert len(one) == 1 + 10 + 1 and one['what colour is the seven?'] == ('red', ('magenta', 'yellow'))
    two = asked(scene((3, 10, 20, 30, None), (3, 60, 20, 60, None)))
    assert two['what is the sum of the two digits?'] == ('6', ('5', '7'))
    # the other one is equal, so who errs takes what looks alike
    assert two['which digit is leftmost?'] == ('3', ('5',)) and two['which digit is largest?'] == ('3', ('5',))


@pytest.mark.parametrize(
    ('second', 'leftmost', 'largest'),
    [
        ((2, 15.1, 20, 40, None), True, False),
        ((2, 14.9, 20, 40, None), False, False),  # edges too near to each other
        ((2, 15.1, 8, 40, None), False, False),  # the middle of the narrow one is further to the left
        ((2, 50, 20, 34.7, None), True, True),  # 40 is 1.15 times as high
        ((2, 50, 20, 34.8, None), True, False),
        ((2, 50, 24, 34, None), True, False),  # not as high, but of a larger area
    ],
)
def test_only_plain_questions_are_asked(second, leftmost, largest):
    found = asked(scene((1, 10, 20, 40, None), second))
    assert ('which digit is leftmost?' in found) is leftmost
    assert ('which digit is largest?' in found) is largest


def test_colour_names():
    assert [colour_name(rgb) for rgb in ((255, 0, 0), (250, 240, 10), (0, 255, 0), (0, 250, 250))] == [
        'red', 'yellow', 'green', 'cyan',
    ]  # fmt: skip
    assert colour_name((90, 90, 255)) == 'blue' and colour_name((255, 60, 240)) == 'magenta'
    # hue -9 degrees is red too; 30 is between red and yellow; half of the colour is the least
    assert colour_name((200, 0, 30)) == 'red' and colour_name((200, 100, 0)) is None
    assert colour_name((200, 100, 100)) == 'red' and colour_name((200, 101, 101)) is None
    assert colour_name((128, 128, 128)) is None


def test_captions_are_true_and_different():
    of = scene((8, 10, 20, 40, 'red'), (2, 40, 20, 30, None), (2, 70, 20, 20, 'blue'))
    found = {text for seed in range(40) for text in make_captions(np.random.default_rng(seed), of)}
    assert found == {
        'three digits: an eight, a two and a two',
        'an eight, a two and a two.',
        'a picture of an eight, a two and a two',
        'there are two twos and an eight',
        'three digits, a red eight, a two and a blue two',
        'a red eight, a two and a blue two on a dark background',
        'three digits from an eight on the left to a two on the right',
    }
    one = {text for seed in range(40) for text in make_captions(np.random.default_rng(seed), scene((6, 1, 9, 9, None)))}
    assert {'one digit: a six', 'there is a six', 'a single digit, a six'} < one
    sixes = scene(*[(6, 10 * i, 5, 9, None) for i in range(3)])
    assert 'there are three sixes' in {t for s in range(20) for t in make_captions(np.random.default_rng(s), sixes)}
    for seed in range(5):
        assert len(set(make_captions(np.random.default_rng(seed), of))) == 5
        assert len(set(make_captions(np.random.default_rng(seed), scene()))) == 5


def test_annotators_disagree_as_said():
    question = Question(0, 'how many', 'how many digits are there?', '4', ('3', '5'))

    def errors(contested):
        rng = np.random.default_rng(0)
        said = [item for _ in range(800) for item in draw_annotator_answers(rng, question, contested)]
        wrong = [item for item in said if normalize_answer(item['answer']) != '4']
        assert {normalize_answer(item['answer']) for item in wrong} == {'3', '5'}
        assert all((item['answer_confidence'] == 'maybe') is (item in wrong) for item in said)
        words = sum(not item['answer'].isdecimal() for item in said) / len(said)
        assert words == pytest.approx(0.3, abs=0.02)
        return len(wrong) / len(said)

    # 8,000 answers: a standard error of 0.0024 and 0.0053
    assert errors(0.0) == pytest.approx(0.05, abs=0.01)
    assert errors(1.0) == pytest.approx(0.35, abs=0.02)
    # numbers from ten on are never words
    large = Question(0, 'what is the sum', 'what is the sum?', '12', ('11', '13'))
    assert all(item['answer'].isdecimal() for item in draw_annotator_answers(np.random.default_rng(0), large, 1.0))


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    out = tmp_path_factory.mktemp('scenes')
    write_scenes(out / 'scenes', SceneOptions(train=150, test=40, size=64, digits=(1, 3), seed=5))
    assert write_questions(out / 'scenes', out / 'questions') == (9, 9)
    return out


def test_no_answer_to_a_kind_is_much_more_frequent(folders):
    scenes = read_scenes(folders / 'scenes/annotations/train.json')
    chosen = choose_questions(np.random.default_rng(0), scenes, 7.0)
    assert len(set(chosen)) == len(chosen)
    kinds = defaultdict(Counter)
    for question in chosen:
        kinds[question.kind][question.answer] += 1
    assert set(kinds) == set(KINDS)
    wanted = 7 * 150 / 7.0
    for kind, (share, _) in KINDS.items():
        counts = kinds[kind]
        # an even share of the kind, rounded up for each of its groups
        limit = wanted * share / (2 if kind == 'is there a' else len(counts))
        assert max(counts.values()) <= limit + (10 if kind == 'is there a' else 1)
    # yes and no are as frequent for each digit
    presence = Counter((question.text, question.answer) for question in chosen if question.kind == 'is there a')
    for name in NAMES:
        text = f'is there a{"n" if name == "eight" else ""} {name}?'
        assert presence[text, 'yes'] == presence[text, 'no'] > 5


def test_files_are_vqav2s(folders):
    out = folders / 'questions'
    names = {split: json.loads((out / f'{split}_questions.json').read_text()) for split in ('train', 'test')}
    for split, content in names.items():
        annotations = json.loads((out / f'{split}_annotations.json').read_text())['annotations']
        assert content['task_type'] == 'Open-Ended' and len(annotations) == len(content['questions']) > 150
        for question, annotation in zip(content['questions'], annotations, strict=True):
            assert set(question) == {'question_id', 'image_id', 'question'}
            assert question['question_id'] // 1000 == question['image_id'] == annotation['image_id']
            assert annotation['answer_type'] == KINDS[annotation['question_type']][1]
            said = [item['answer'] for item in annotation['answers']]
            assert len(said) == 10 and [item['answer_id'] for item in annotation['answers']] == list(range(1, 11))
            most = Counter(map(normalize_answer, said))
            assert most[annotation['multiple_choice_answer']] == max(most.values())
    # the two data sets read them
    for split, test_mode in (('train', False), ('test', True)):
        dataset = VQADataset(
            question_file=f'{out}/{split}_questions.json',
            ann_file=f'{out}/{split}_annotations.json',
            answer_file=f'{out}/answers.txt',
            data_prefix=f'{folders}/scenes/{split}',
            img_pattern='{:06d}.png',
            test_mode=test_mode,
            pipeline=[{'type': 'LoadImage'}, {'type': 'PackVQA'}],
        )
        assert len(dataset) == len(names[split]['questions'])
        assert dataset[0]['inputs'].shape == (3, 64, 64)
        captions = ImageTextManifest(
            ann_file=f'{out}/{split}.jsonl', data_prefix=f'{folders}/scenes/{split}', test_mode=True,
            pipeline=[{'type': 'LoadImage'}, {'type': 'PackImageText'}],
        )  # fmt: skip
        sample = captions[3]['data_samples']
        coco = json.loads((out / f'{split}_captions.json').read_text())
        assert sample.texts == [item['caption'] for item in coco['annotations'] if item['image_id'] == 3]
        assert len(coco['annotations']) == 5 * len(captions) and sample.extra == {'image_id': 3}


def test_answers_follow_from_the_scenes_annotations(folders):
    content = json.loads((folders / 'scenes/annotations/test.json').read_text())
    labels = {category['id']: NAMES.index(category['name']) for category in content['categories']}
    digits = defaultdict(list)
    for item in content['annotations']:
        digits[item['image_id'] - 1].append((item['bbox'], labels[item['category_id']], item['colour']))
    scenes = read_scenes(folders / 'scenes/annotations/test.json')
    checked = Counter()
    for question, _ in make_questions(scenes, QuestionOptions(), 'test'):
        found = digits[question.image_id]
        if question.kind == 'how many':
            right = len(found)
        elif question.kind == 'is there a':
            right = 'yes' if any(NAMES[label] == question.text[:-1].split()[-1] for _, label, _ in found) else 'no'
        elif question.kind == 'which is leftmost':
            right = min(found)[1]
        elif question.kind == 'which is largest':
            right = max((box[2] * box[3], label) for box, label, _ in found)[1]
        elif question.kind == 'what is the sum':
            right = min(found)[1] + max((box[0] + box[2], label) for box, label, _ in found)[1]
        else:
            (rgb,) = [colour for _, label, colour in found if NAMES[label] == question.text[:-1].split()[-1]]
            # the strongest of red, green and blue, and the second strongest where the two are about as strong
            low, middle, high = sorted(range(3), key=lambda i: rgb[i])
            pairs = {(0, 1): 'yellow', (1, 2): 'cyan', (0, 2): 'magenta'}
            strong = rgb[middle] - rgb[low] > (rgb[high] - rgb[low]) / 2
            right = pairs[tuple(sorted((middle, high)))] if strong else ('red', 'green', 'blue')[high]
        assert question.answer == str(right), question
        checked[question.kind] += 1
    assert min(checked[kind] for kind in KINDS) >= 5


def test_who_sees_the_question_alone_can_only_guess(folders):
    scenes = read_scenes(folders / 'scenes/annotations/train.json')
    asked_ = make_questions(scenes, QuestionOptions(), 'train')
    said = [[item['answer'] for item in answers] for _, answers in asked_]
    right = np.mean(
        [vqa_accuracy(question.answer, answers) for (question, _), answers in zip(asked_, said, strict=True)]
    )
    texts = [question.text for question, _ in asked_]
    best = best_constant_answers(texts, said)
    alone = np.mean([best[text][1] for text in texts])
    # the bound includes what is fitted to 900 questions; of the default scenes it is 0.39
    assert right > 0.99 and 0.3 < alone < 0.55


def test_second_run_mends_and_other_scenes_are_noticed(folders, tmp_path):
    out = folders / 'questions'
    assert write_questions(folders / 'scenes', out) == (0, 9)
    good = (out / 'train.jsonl').read_bytes()
    (out / 'train.jsonl').write_bytes(good[:-9])
    assert write_questions(folders / 'scenes', out) == (1, 9)
    assert (out / 'train.jsonl').read_bytes() == good
    write_questions(folders / 'scenes', tmp_path / 'other', QuestionOptions(seed=1))
    assert (tmp_path / 'other/train_questions.json').read_bytes() != (out / 'train_questions.json').read_bytes()
    path = folders / 'scenes/annotations/test.json'
    content = json.loads(path.read_text())
    del content['annotations'][0]['colour']
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/train.json').write_bytes((path.parent / 'train.json').read_bytes())
    with pytest.raises(FileNotFoundError, match='no annotations .*test.json; write scenes with'):
        write_questions(tmp_path, tmp_path / 'x')
    (tmp_path / 'annotations/test.json').write_text(json.dumps(content))
    with pytest.raises(DataError, match='annotation 1 has no colour; write the scenes again'):
        write_questions(tmp_path, tmp_path / 'x')


def test_bad_options_have_their_sentence():
    for options, message in (
        ({'per_picture': 0}, 'per_picture=0 of the questions must be positive'),
        ({'contested': 1.5}, 'contested=1.5 of the questions must be a fraction'),
        ({'seed': -1}, 'seed=-1 of the questions must be at least 0'),
    ):
        with pytest.raises(ValueError, match=message):
            QuestionOptions(**options)


def test_command(folders, tmp_path, monkeypatch, capsys):
    arguments = [str(TOOL), '--scenes', str(folders / 'scenes'), '--out', str(tmp_path / 'q'), '--per-picture', '3']
    monkeypatch.setattr(sys, 'argv', arguments)
    runpy.run_path(str(TOOL), run_name='__main__')
    said = capsys.readouterr().out
    assert 'accuracy on train' in said and 'wrote 9 of 9 files' in said
    assert cv2.imread(str(tmp_path / 'q/contact_sheet_test.png')).shape[1] == 2 * (620 + 12) + 12
    monkeypatch.setattr(sys, 'argv', [str(TOOL), '--scenes', str(tmp_path / 'none'), '--out', str(tmp_path / 'r')])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(TOOL), run_name='__main__')
    assert stopped.value.code == 2 and 'prepare_scenes.py' in capsys.readouterr().err
