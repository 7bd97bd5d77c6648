from itertools import combinations

import pytest

from florence_mm.evaluation.functional.vqa import best_constant_answers, vqa_accuracy
from florence_mm.language.answers import soft_scores


@pytest.mark.parametrize(
    ('agreeing', 'accuracy'),
    # 1 of ten: it is among nine of the ten sets of nine, which gives 9/10 * 1/3; 3: 3/10 * 2/3 + 7/10 * 1
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0)],
)
def test_by_hand(agreeing, accuracy):
    answers = ['red'] * agreeing + [f'other {i}' for i in range(10 - agreeing)]
    assert vqa_accuracy('red', answers) == pytest.approx(accuracy, abs=1e-12)
    # the target of training is the same
    assert soft_scores(answers).get('red', 0) == pytest.approx(accuracy, abs=1e-12)


@pytest.mark.parametrize('number', [2, 3, 5, 10])
def test_mean_over_all_sets_without_one(number):
    for agreeing in range(number + 1):
        answers = ['yes'] * agreeing + ['no', 'maybe'] * number
        answers = answers[:number]
        sets = list(combinations(answers, number - 1))
        wanted = sum(min(others.count('yes') / 3, 1) for others in sets) / len(sets)
        assert vqa_accuracy('yes', answers) == pytest.approx(wanted, abs=1e-12)


def test_normalised_only_where_annotators_differ():
    assert vqa_accuracy('2', ['two'] * 9 + ['3']) == 1
    assert vqa_accuracy('The 2.', ['two'] * 9 + ['3']) == 1
    # where all wrote the same it must be that, blanks at the ends apart
    assert vqa_accuracy('2', ['two'] * 10) == 0
    assert vqa_accuracy('two ', [' two'] * 5 + ['two\n'] * 5) == 1
    with pytest.raises(ValueError, match='^1 answer of annotators; .* needs at least two, so repeat .* four times$'):
        vqa_accuracy('red', ['red'])
    assert vqa_accuracy('red', ['red'] * 4) == 1


def test_best_constant_answers():
    given = [['3'] * 10, ['three'] * 6 + ['4'] * 4, ['4'] * 10, ['5'] * 10, ['yes'] * 5 + ['no'] * 5]
    best = best_constant_answers(['how many'] * 4 + ['is there'], given)
    # 4 is fully right twice, as 3 is; 5 once; of equally good ones the first by alphabet
    assert best['how many'] == ('3', pytest.approx(2 / 4))
    assert best['is there'] == ('no', 1.0)
