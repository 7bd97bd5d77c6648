import math

import pytest
import torch
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from florence_mm.evaluation.functional import (
    image_text_recall,
    ranks,
    retrieval_ranks,
    summarize_ranks,
    two_way_ranks,
)
from florence_mm.evaluation.functional.zero_shot import UNRANKED


def test_ranks_by_hand():
    # similarities are the gallery's values themselves
    gallery = torch.tensor([[0.9], [0.5], [0.7], [0.1]])
    query = torch.ones(1, 1)
    for right, rank in (([0], 0), ([2], 1), ([1], 2), ([3], 3), ([1, 2], 1), ([3, 0], 0), ([1, 3], 2)):
        assert retrieval_ranks(query, gallery, [right]).item() == rank


def test_right_items_do_not_push_each_other_down():
    # all five captions of an image are better than the wrong one
    gallery = torch.tensor([[0.5], [0.9], [0.8], [0.7], [0.6], [0.95]])
    assert retrieval_ranks(torch.ones(1, 1), gallery, [[1, 2, 3, 4, 5]]).item() == 0
    assert retrieval_ranks(torch.ones(1, 1), gallery, [[0]]).item() == 5


@pytest.mark.parametrize('queries', [0, 2])
def test_nothing_to_retrieve_is_refused(queries):
    images, texts = torch.zeros(queries, 3), torch.zeros(0, 3)
    with pytest.raises(ValueError, match=f'among {queries} images and 0 texts has no ranks; give at least one of each'):
        two_way_ranks(images, texts, [[]] * queries, [])
    if not queries:
        with pytest.raises(ValueError, match='among 0 images and 0 texts'):
            image_text_recall(images, texts, [])


def test_ties_count_against():
    features = torch.ones(6, 3)
    assert retrieval_ranks(features, features, [[i] for i in range(6)]).tolist() == [5] * 6
    assert image_text_recall(features, features, range(6), topk=(1, 5, 6)) == {
        'i2t_R@1': 0.0,
        'i2t_R@5': 0.0,
        'i2t_R@6': 1.0,
        'i2t_MdR': 6.0,
        'i2t_MnR': 6.0,
        't2i_R@1': 0.0,
        't2i_R@5': 0.0,
        't2i_R@6': 1.0,
        't2i_MdR': 6.0,
        't2i_MnR': 6.0,
    }


def test_nan_counts_against():
    gallery = torch.tensor([[0.9], [float('nan')], [0.1]])
    query = torch.ones(1, 1)
    never = torch.iinfo(torch.int64).max
    assert [retrieval_ranks(query, gallery, [[i]]).item() for i in range(3)] == [1, never, 2]
    assert retrieval_ranks(query, gallery, [[1, 2]]).item() == 1
    features = torch.full((2, 3), float('nan'))
    scores = image_text_recall(features, features, [0, 1], topk=(1, 5))
    assert {value for key, value in scores.items() if '_R@' in key} == {0.0}
    # last of two
    assert {value for key, value in scores.items() if '_R@' not in key} == {2.0}


@pytest.mark.parametrize('max_elements', [1, 50, 1 << 20])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float16])
def test_chunks_change_nothing(max_elements, dtype):
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(23, 8, generator=generator).to(dtype)
    gallery = torch.randn(31, 8, generator=generator).to(dtype)
    positives = [sorted({i, (7 * i + 3) % 31}) for i in range(23)]
    similarity = queries.double() @ gallery.double().T
    expected = []
    for i, row in enumerate(positives):
        order = similarity[i].argsort(descending=True).tolist()
        # places of the right items in the list, less the right items before them
        expected.append(min(order.index(j) for j in row))
    assert retrieval_ranks(queries, gallery, positives, max_elements).tolist() == expected


def naive_recall(image_feats, text_feats, owners, k):
    """The published protocol by sorting whole lists, one query after the other."""
    similarity = image_feats @ text_feats.T
    hits_i = []
    for i, row in enumerate(similarity):
        best = row.argsort(descending=True)[:k].tolist()
        hits_i.append(any(owners[j] == i for j in best))
    hits_t = [owners[j] in column.argsort(descending=True)[:k].tolist() for j, column in enumerate(similarity.T)]
    return sum(hits_i) / len(hits_i), sum(hits_t) / len(hits_t)


@pytest.mark.parametrize('seed', range(3))
def test_equals_the_published_protocol(seed):
    generator = torch.Generator().manual_seed(seed)
    images = normalize(torch.randn(40, 6, generator=generator, dtype=torch.float64), dim=1)
    owners = sorted([*range(40), *torch.randint(0, 40, (110,), generator=generator).tolist()])
    noise = torch.randn(150, 6, generator=generator, dtype=torch.float64)
    texts = normalize(images[owners] + 0.5 * noise, dim=1)
    scores = image_text_recall(images, texts, owners, topk=(1, 5, 10))
    for k in (1, 5, 10):
        assert (scores[f'i2t_R@{k}'], scores[f't2i_R@{k}']) == naive_recall(images, texts, owners, k)
    assert 0.2 < scores['i2t_R@1'] < 1


def recalls(scores):
    return {key: value for key, value in scores.items() if '_R@' in key}


def test_equal_captions_are_one_item_by_hand():
    # Images a, b, c point along the axes. Captions: a and b share "A dog.", c has "cat".
    images = torch.eye(3)
    texts = ['A dog.', 'a  dog', 'Cat', 'cat']
    dog = normalize(torch.tensor([1.0, 1.0, 0.2]), dim=0)
    cat = torch.tensor([0.0, 0.0, 1.0])
    features = torch.stack([dog, dog, cat, cat])
    owners = [0, 1, 2, 2]
    merged = recalls(image_text_recall(images, features, owners, texts, topk=(1, 2)))
    # "dog" is right for a and b; its images are a and b; c is right with "cat"
    assert merged == {'i2t_R@1': 1.0, 'i2t_R@2': 1.0, 't2i_R@1': 1.0, 't2i_R@2': 1.0}
    apart = recalls(image_text_recall(images, features, owners, topk=(1, 2)))
    # each copy of "dog" ties with the other's, wrong one; "cat" is right twice
    assert apart == {'i2t_R@1': 1 / 3, 'i2t_R@2': 1.0, 't2i_R@1': 0.5, 't2i_R@2': 1.0}


def test_one_query_for_equal_captions():
    # "x" occurs nine times and is found; "y" is not: half of the two queries
    images = torch.cat([torch.tensor([[1.0, 0.0]]).repeat(9, 1), torch.tensor([[0.0, 1.0]])])
    features = torch.tensor([[1.0, 0.0]]).repeat(10, 1)
    scores = image_text_recall(images, features, range(10), ['x'] * 9 + ['y'], topk=(1,))
    assert scores['t2i_R@1'] == 0.5
    # images 0 to 8 tie between x and y, image 9 has no similarity to either
    assert scores['i2t_R@1'] == 0.0


class Sizes(TorchDispatchMode):
    """Records the number of values of every tensor that is made."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.seen += [one.numel() for one in torch.utils._pytree.tree_leaves(result) if isinstance(one, torch.Tensor)]
        return result


def test_memory_is_bounded():
    # two values for each of 5000 similarities at once, far below the million of the whole matrix
    features, alone = torch.randn(1000, 4), [[i] for i in range(1000)]
    for call in (lambda n: retrieval_ranks(features, features, alone, n), two_ways(features, features, alone)):
        with Sizes() as sizes:
            call(5000)
        assert max(sizes.seen) == 2 * 5000
        with Sizes() as sizes:
            call(1 << 24)
        assert max(sizes.seen) == 2 * 1000 * 1000


def two_ways(images, texts, texts_of):
    """A call of the number of elements."""
    images_of = [[i for i, row in enumerate(texts_of) if text in row] for text in range(len(texts))]
    return lambda *most: two_way_ranks(images, texts, texts_of, images_of, *most)


def ranks_by_comparing(similarity, positives):
    """The definition, one query after the other."""
    ranks = []
    for row, right in zip(similarity.tolist(), positives, strict=True):
        best = max((row[i] for i in right if not math.isnan(row[i])), default=-math.inf)
        wrong = [value for i, value in enumerate(row) if i not in right]
        ranks.append(torch.iinfo(torch.int64).max if best == -math.inf else sum(not value < best for value in wrong))
    return ranks


@pytest.mark.parametrize('kind', ['random', 'small whole numbers', 'copies', 'constant', 'huge', 'not finite'])
def test_two_ways_equal_each_way(kind):
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(n, 16, generator=generator) for n in (40, 70))
    texts_of = [sorted({i, 2 * i % 70, (7 * i + 3) % 70, *((40 + i,) if i < 30 else ())}) for i in range(40)]
    images_of = [[i for i, row in enumerate(texts_of) if text in row] for text in range(70)]
    if kind == 'small whole numbers':  # many equal similarities, which are exact
        images, texts = (x.sign() * (x.abs() > 1) for x in (images, texts))
    elif kind == 'copies':  # of texts that belong to other images; eighths make products exact
        images, texts = ((8 * x).round() / 8 for x in (images, texts))
        texts, images[20:] = texts[torch.arange(70) % 9], images[:20]
    elif kind == 'constant':
        images, texts = torch.ones(40, 16), torch.ones(70, 16)
    elif kind == 'huge':  # products overflow to infinity
        images, texts = images.abs() * 1e29, texts.abs() * 3e8
        assert 0.2 < (images @ texts.T).isinf().float().mean() < 0.8
    elif kind == 'not finite':
        images[3, 2], texts[5, 1], texts[50] = math.nan, math.inf, math.nan
    similarity = images @ texts.T
    expected = [ranks_by_comparing(similarity, texts_of), ranks_by_comparing(similarity.T, images_of)]
    for most in (1, 500, 1 << 24):
        assert [ranks.tolist() for ranks in two_way_ranks(images, texts, texts_of, images_of, most)] == expected
        assert retrieval_ranks(images, texts, texts_of, most).tolist() == expected[0]
        assert retrieval_ranks(texts, images, images_of, most).tolist() == expected[1]


def test_images_of_several_vectors_are_ranked_by_the_nearest():
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(20, 3, 8, generator=generator), torch.randn(30, 8, generator=generator)
    texts_of = [sorted({i, (7 * i + 3) % 30, *((20 + i,) if i < 10 else ())}) for i in range(20)]
    images_of = [[i for i, row in enumerate(texts_of) if text in row] for text in range(30)]
    similarity = torch.stack([torch.stack([max(v @ text for v in image) for text in texts]) for image in images])
    expected = [ranks_by_comparing(similarity, texts_of), ranks_by_comparing(similarity.T, images_of)]
    assert expected[0] != ranks_by_comparing(images[:, 0] @ texts.T, texts_of)  # of the first vectors alone
    for most in (1, 500, 1 << 24):
        assert [found.tolist() for found in two_way_ranks(images, texts, texts_of, images_of, most)] == expected
        assert retrieval_ranks(texts, images, images_of, most).tolist() == expected[1]
    # by hand: the second vector of the second image is nearest to the text
    two = torch.tensor([[[1.0, 0.0], [0.6, 0.8]], [[-1.0, 0.0], [0.0, 1.0]]])
    assert retrieval_ranks(torch.tensor([[0.0, 1.0]]), two, [[1]]).item() == 0
    assert retrieval_ranks(two, torch.tensor([[0.0, 1.0], [1.0, 0.0]]), [[0], [0]]).tolist() == [1, 0]
    with pytest.raises(ValueError, match=r'\(2, 2, 2\) and gallery \(2, 2, 2\) must be .* or one of them'):
        retrieval_ranks(two, two, [[0], [1]])


def test_only_texts_in_doubt_are_ranked_again(monkeypatch):
    # text 1 belongs to the first image and is as near to the second
    again = []
    alone = ranks.retrieval_ranks
    monkeypatch.setattr(ranks, 'retrieval_ranks', lambda texts, *rest: again.append(texts) or alone(texts, *rest))
    texts = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.1, 1.0]])
    found = two_way_ranks(torch.eye(2), texts, [[0, 1], [2]], [[0], [0], [1]])
    assert [one.tolist() for one in found] == [[0, 0], [0, 1, 0]]
    assert [one.tolist() for one in again] == [[[0.5, 0.5]]]
    # a product that is less exact than expected: no prediction holds, and all are ranked again
    inexact = torch.mm
    monkeypatch.setattr(torch, 'mm', lambda a, b, out: inexact(a, b, out=out).mul_(1.01))
    two_way_ranks(torch.eye(2), texts, [[0, 1], [2]], [[0], [0], [1]])
    assert len(again[1]) == 3


def test_a_correct_item_named_twice_counts_once():
    gallery = torch.tensor([[0.9], [0.5], [0.7], [0.1]])
    assert retrieval_ranks(torch.ones(1, 1), gallery, [[1, 1]]).item() == 2


def test_bad_input():
    two, three = torch.zeros(2, 4), torch.zeros(3, 4)
    with pytest.raises(ValueError, match='query 1 has no correct item'):
        retrieval_ranks(two, three, [[0], []])
    with pytest.raises(ValueError, match='2 queries, but correct items for 1'):
        retrieval_ranks(two, three, [[0]])
    with pytest.raises(ValueError, match=r'must be \(Q, D\) and \(G, D\)'):
        retrieval_ranks(two, torch.zeros(3, 5), [[0], [0]])
    for images_of in ([[0], [0], [0]], [[0], [0, 1]], [[0], [0, 1], []]):
        with pytest.raises(ValueError, match='texts_of and images_of have different pairs'):
            two_way_ranks(two, three, [[0, 1], [2]], images_of)
    with pytest.raises(ValueError, match='image 1 has no caption'):
        image_text_recall(two, three, [0, 0, 0])
    with pytest.raises(ValueError, match='the numbers must agree'):
        image_text_recall(two, three, [0, 1])
    with pytest.raises(ValueError, match='3 text features, 3 owners and 2 texts'):
        image_text_recall(two, three, [0, 1, 1], ['a', 'b'])
    with pytest.raises(ValueError, match="modality='audio' of retrieval must be one of image, video"):
        image_text_recall(two, two, [0, 1], modality='audio')
    with pytest.raises(ValueError, match='video 1 has no caption'):
        image_text_recall(two, three, [0, 0, 0], modality='video')


def test_median_and_mean_rank_by_hand():
    ranks = torch.tensor([0, 4, 1, 9])
    # places 1, 5, 2, 10: the middle two are 2 and 5, the sum is 18
    assert summarize_ranks(ranks, 20, (1, 5)) == {'R@1': 0.25, 'R@5': 0.75, 'MdR': 3.5, 'MnR': 4.5}
    assert summarize_ranks(ranks[:3], 20, (2,)) == {'R@2': 2 / 3, 'MdR': 2.0, 'MnR': 8 / 3}
    # what cannot be ranked is last of 20
    never = torch.tensor([0, torch.iinfo(torch.int64).max])
    assert summarize_ranks(never, 20, (1, 20)) == {'R@1': 0.5, 'R@20': 0.5, 'MdR': 10.5, 'MnR': 10.5}


def test_ranks_with_several_captions_by_hand():
    # one channel: similarity is the product; images 1, 2 and -1, of which the first has two captions
    images = torch.tensor([[1.0], [2.0], [-1.0]])
    texts = torch.tensor([[3.0], [1.0], [2.0], [4.0]])
    scores = image_text_recall(images, texts, [0, 0, 1, 2], topk=(1,))
    # image 0 sees 3, 1, 2, 4: its best caption is second, after that of image 2. Image 1 sees 6, 2, 4, 8: third.
    # Image 2 sees -3, -1, -2, -4: last
    assert scores['i2t_MdR'] == 3.0
    assert scores['i2t_MnR'] == (2 + 3 + 4) / 3
    # every caption ranks the images 1, 0, 2: those of image 0 are second, that of 1 first, that of 2 last
    assert scores['t2i_MdR'] == 2.0
    assert scores['t2i_MnR'] == (2 + 2 + 1 + 3) / 4
    # with the first two captions equal there is one query less, with the first one's feature
    merged = image_text_recall(images, texts, [0, 0, 1, 2], ['a', 'A.', 'b', 'c'], topk=(1,))
    assert merged['t2i_MnR'] == (2 + 1 + 3) / 3
    assert merged['i2t_MnR'] == (2 + 3 + 3) / 3


def test_videos_with_one_query_each_by_hand():
    # the 1K-A protocol: a query is right for its own video, also where another has the same words
    similarity = torch.tensor([[0.9, 0.1, 0.3], [0.5, 0.4, 0.6], [0.2, 0.8, 0.7]])  # query, video
    queries = ['a dog runs', 'a man sings', 'A man sings.']
    # unit vectors as videos make the similarities the texts' own coordinates
    scores = image_text_recall(torch.eye(3), similarity, range(3), topk=(1, 2), modality='video')
    # query 0 finds its video first, query 1 last, query 2 second
    assert scores['t2v_R@1'] == 1 / 3
    assert scores['t2v_R@2'] == 2 / 3
    assert scores['t2v_MdR'] == 2.0
    assert scores['t2v_MnR'] == 2.0
    # down the columns: video 0 has its query first, video 1 second after query 2, video 2 first
    assert {k: v for k, v in scores.items() if k.startswith('v2t')} == {
        'v2t_R@1': 2 / 3,
        'v2t_R@2': 1.0,
        'v2t_MdR': 1.0,
        'v2t_MnR': 4 / 3,
    }
    merged = image_text_recall(torch.eye(3), similarity, range(3), queries, topk=(1,), modality='video')
    # the equal queries are one, right for videos 1 and 2, of which the second comes first
    assert merged['t2v_R@1'] == 1.0


def test_equals_mmactions_metric():
    from mmaction.evaluation import RetrievalMetric

    generator = torch.Generator().manual_seed(0)
    videos = normalize(torch.randn(30, 5, generator=generator, dtype=torch.float64), dim=1)
    texts = normalize(videos + 0.5 * torch.randn(30, 5, generator=generator, dtype=torch.float64), dim=1)
    ours = image_text_recall(videos, texts, range(30), modality='video')
    features = [{'video_feature': video, 'text_feature': text} for video, text in zip(videos, texts, strict=True)]
    metric = RetrievalMetric()
    metric.process(None, [{'features': feature} for feature in features])
    theirs = metric.compute_metrics(metric.results)
    for k in (1, 5, 10):
        assert 100 * ours[f't2v_R@{k}'] == pytest.approx(theirs[f'R{k}'])
    assert ours['t2v_MdR'] == theirs['MdR'] > 1
    assert ours['t2v_MnR'] == pytest.approx(theirs['MnR'])


def test_a_text_whose_similarities_overflow_has_no_rank():
    # 2e38 * 2 - 2e38 * 2 is inf - inf
    huge = torch.tensor([[2e19, 2e19]])
    _, of_texts = two_way_ranks(huge, torch.tensor([[2e19, -2e19]]), [[0]], [[0]])
    assert of_texts.tolist() == retrieval_ranks(torch.tensor([[2e19, -2e19]]), huge, [[0]]).tolist() == [UNRANKED]
