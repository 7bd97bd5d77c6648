import math

import pytest
import torch
from torch.nn.functional import normalize

from florence_mm.evaluation.functional import image_text_recall, retrieval_ranks


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


def test_ties_count_against():
    features = torch.ones(6, 3)
    assert retrieval_ranks(features, features, [[i] for i in range(6)]).tolist() == [5] * 6
    assert image_text_recall(features, features, range(6), topk=(1, 5, 6)) == {
        'i2t_R@1': 0.0,
        'i2t_R@5': 0.0,
        'i2t_R@6': 1.0,
        't2i_R@1': 0.0,
        't2i_R@5': 0.0,
        't2i_R@6': 1.0,
    }


def test_nan_counts_against():
    gallery = torch.tensor([[0.9], [float('nan')], [0.1]])
    query = torch.ones(1, 1)
    never = torch.iinfo(torch.int64).max
    assert [retrieval_ranks(query, gallery, [[i]]).item() for i in range(3)] == [1, never, 2]
    assert retrieval_ranks(query, gallery, [[1, 2]]).item() == 1
    features = torch.full((2, 3), float('nan'))
    assert set(image_text_recall(features, features, [0, 1], topk=(1, 5)).values()) == {0.0}


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


def test_equal_captions_are_one_item_by_hand():
    # Images a, b, c point along the axes. Captions: a and b share "A dog.", c has "cat".
    images = torch.eye(3)
    texts = ['A dog.', 'a  dog', 'Cat', 'cat']
    dog = normalize(torch.tensor([1.0, 1.0, 0.2]), dim=0)
    cat = torch.tensor([0.0, 0.0, 1.0])
    features = torch.stack([dog, dog, cat, cat])
    owners = [0, 1, 2, 2]
    merged = image_text_recall(images, features, owners, texts, topk=(1, 2))
    # "dog" is right for a and b; its images are a and b; c is right with "cat"
    assert merged == {'i2t_R@1': 1.0, 'i2t_R@2': 1.0, 't2i_R@1': 1.0, 't2i_R@2': 1.0}
    apart = image_text_recall(images, features, owners, topk=(1, 2))
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


def test_memory_is_bounded():
    # 9 bytes for each of 1000 similarities at once: far below the 4 MB of the whole matrix
    features = torch.randn(1000, 4)
    sizes = []
    original = torch.Tensor.masked_fill

    def spy(self, *args):
        sizes.append(self.numel())
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, 'masked_fill', spy)
        retrieval_ranks(features, features, [[i] for i in range(1000)], max_elements=5000)
    assert max(sizes) == 5000
    assert len(sizes) == math.ceil(1000 / 5)


def test_bad_input():
    two, three = torch.zeros(2, 4), torch.zeros(3, 4)
    with pytest.raises(ValueError, match='query 1 has no right item'):
        retrieval_ranks(two, three, [[0], []])
    with pytest.raises(ValueError, match='2 queries, but right items for 1'):
        retrieval_ranks(two, three, [[0]])
    with pytest.raises(ValueError, match=r'must be \(Q, D\) and \(G, D\)'):
        retrieval_ranks(two, torch.zeros(3, 5), [[0], [0]])
    with pytest.raises(ValueError, match='image 1 has no caption'):
        image_text_recall(two, three, [0, 0, 0])
    with pytest.raises(ValueError, match='the numbers must agree'):
        image_text_recall(two, three, [0, 1])
    with pytest.raises(ValueError, match='3 text features, 3 owners and 2 texts'):
        image_text_recall(two, three, [0, 1, 1], ['a', 'b'])
