import math

import pytest

from florence_mm.evaluation.functional.captions import caption_words, cider_d, corpus_bleu, rouge_l

PAIRS = {
    'two dogs play in the grass': ['two dogs are playing on grass', 'a pair of dogs in the grass', 'dogs play'],
    'a red bus on a street': ['a red bus drives down the street', 'the bus is red'],
    'cat': ['a cat sits on a table', 'a cat'],
    'three digits : a two , a five and an eight': ['three digits : a two , a five and an eight', 'an eight and a two'],
    'one one one': ['one of many', 'no one'],
}


def words(text):
    return text.split()


CANDIDATES = [text.split() for text in PAIRS]
REFERENCES = [[text.split() for text in texts] for texts in PAIRS.values()]
# what pycocoevalcap 1.2 gives for these very words, by Bleu(4), Rouge() and Cider()
BLEU = [0.7910321049615215, 0.7309046505462683, 0.671775080410446, 0.6333093714777887]
ROUGE = [0.8299319727891156, 0.6069651741293532, 0.6288659793814433, 1.0, 0.4149659863945578]
CIDER = [2.3898288291631644, 2.302234578856951, 1.7000487760522678, 5.718038435820745, 0.5638760118889616]


def test_words():
    assert caption_words("A dog's ball, isn't it?") == ['a', 'dog', "'s", 'ball', 'is', "n't", 'it']
    assert caption_words('Black-and-white cat at 5:30 – 3,000 $ (new)...') == [
        'black-and-white', 'cat', 'at', '5:30', '3,000', '$', 'new'
    ]  # fmt: skip
    assert caption_words('They\u2019re at a caf\u00e9; can\u2019t') == [
        'they',
        "'re",
        'at',
        'a',
        'caf\u00e9',
        'ca',
        "n't",
    ]
    assert caption_words(' .!') == []


def test_bleu_by_hand():
    # Papineni's example: each "the" counts at most as often as in a reference, so 2 of 7
    (bleu1, bleu2, *_) = corpus_bleu([['the'] * 7], [[words('the cat is on the mat'), words('there is a cat')]])
    assert bleu1 == pytest.approx(2 / 7) and bleu2 == 0
    # 3 words against references of 4 and 9: nearest is 4, so exp(1 - 4/3); all words, both pairs, the triple right
    scores = corpus_bleu(
        [words('a red bus')], [[words('a red bus stops'), words('x a red bus with many people on it')]]
    )
    assert scores == pytest.approx([math.exp(-1 / 3)] * 3 + [0])
    # equally near lengths: the shorter one, no penalty
    assert corpus_bleu([['a', 'b']], [[['a'], ['a', 'b', 'c']]])[0] == pytest.approx(1)
    assert corpus_bleu([[]], [[['a']]]) == [0, 0, 0, 0]


def test_rouge_by_hand():
    # common: "police the gunman" of 4 and of 4 words, precision and recall 3/4
    assert rouge_l(words('police kill the gunman'), [words('police killed the gunman')]) == pytest.approx(0.75)
    # common "a c" of 3 and of 4 words; F with beta 1.2
    p, r = 2 / 3, 2 / 4
    assert rouge_l(list('abc'), [list('axcy')]) == pytest.approx(2.44 * p * r / (r + 1.44 * p))
    # precision and recall are the best of all references, from different ones too
    assert rouge_l(list('ab'), [list('abcd'), list('a')]) == pytest.approx(1)
    assert rouge_l([], [['a']]) == 0 and rouge_l(['b'], [['a']]) == 0


def test_cider_by_hand():
    # two pictures; every word occurs in the references of one, so each weighs log 2
    scores = cider_d([['a', 'b'], ['d']], [[['a', 'b']], [['c', 'd']]])
    # first: cosine 1 for one and two words, nothing longer; second: of its words, 1/sqrt(2); lengths differ by a pair
    assert scores[0] == pytest.approx(10 * 2 / 4)
    assert scores[1] == pytest.approx(10 * (1 / math.sqrt(2)) / 4 * math.exp(-1 / 72))
    # what all pictures have is worth nothing
    assert cider_d([['a'], ['a']], [[['a']], [['a']]]) == [0, 0]
    # repeating a word is clipped to the reference's count: cosine of (3, 0) clipped and (1, 1)
    repeated = cider_d([['a', 'a', 'a'], ['x']], [[['a', 'b']], [['x']]])
    assert repeated[0] == pytest.approx(10 / 4 * (1 / (3 * math.sqrt(2))) * math.exp(-1 / 72))


def test_as_the_public_code():
    assert corpus_bleu(CANDIDATES, REFERENCES) == pytest.approx(BLEU, abs=1e-9)
    found = [rouge_l(candidate, wanted) for candidate, wanted in zip(CANDIDATES, REFERENCES, strict=True)]
    assert found == pytest.approx(ROUGE, abs=1e-12)
    assert cider_d(CANDIDATES, REFERENCES) == pytest.approx(CIDER, abs=1e-12)


def test_order_of_pictures_and_references_does_not_matter():
    turned = [wanted[::-1] for wanted in REFERENCES[::-1]]
    assert cider_d(CANDIDATES[::-1], turned) == pytest.approx(cider_d(CANDIDATES, REFERENCES)[::-1], abs=1e-12)
    assert corpus_bleu(CANDIDATES[::-1], turned) == pytest.approx(corpus_bleu(CANDIDATES, REFERENCES), abs=1e-12)


def test_errors():
    with pytest.raises(ValueError, match='1 captions, but references of 2 images'):
        cider_d([['a']], [[['a']], [['b']]])
    with pytest.raises(ValueError, match='image 1 has no reference caption'):
        corpus_bleu([['a'], ['b']], [[['a']], []])
