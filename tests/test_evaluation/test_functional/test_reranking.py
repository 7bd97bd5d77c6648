import pytest
import torch

from florence_mm.evaluation.functional import best_candidates, image_text_recall, reranked_ranks, retrieval_ranks
from florence_mm.evaluation.functional.retrieval import group_captions


def test_ranks_by_hand():
    candidates = torch.tensor([[4, 1, 2], [0, 3, 1], [2, 0, 4], [1, 2, 3], [0, 1, 2]])
    scores = torch.tensor(
        [[0.1, 0.9, 0.5], [0.2, 0.7, 0.7], [0.3, 0.1, 0.2], [float('nan'), 0.4, 0.1], [0.6, 0.5, 0.9]]
    )
    positives = [[2], [1], [3], [2], [0, 1, 4]]
    before = torch.tensor([2, 1, 4, 0, 0])
    # 1 is better; 3 is equal; the right one is no candidate; NaN counts against; 0 is the best right one behind 2
    assert reranked_ranks(before, candidates, scores, positives).tolist() == [1, 1, 4, 1, 1]
    scores[0, 2] = float('nan')
    assert reranked_ranks(before, candidates, scores, positives)[0].item() == 2
    with pytest.raises(ValueError, match=r'candidates \(5, 3\) and scores \(5, 2\)'):
        reranked_ranks(before, candidates, scores[:, :2], positives)


def test_the_order_of_similarity_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    queries, gallery = (torch.randn(n, 5, generator=generator) for n in (30, 20))
    positives = [[i % 20, (3 * i) % 20] for i in range(30)]
    ranks = retrieval_ranks(queries, gallery, positives)
    for k in (1, 4, 50):
        candidates, similarity = best_candidates(queries, gallery, k, max_elements=70)
        assert candidates.shape == (30, min(k, 20))
        assert torch.equal(reranked_ranks(ranks, candidates, similarity, positives), ranks)
        torch.testing.assert_close(similarity, (queries @ gallery.T).gather(1, candidates))
    # all in the opposite order
    opposite = retrieval_ranks(-queries, gallery, positives)
    assert torch.equal(reranked_ranks(ranks, candidates, -similarity, positives), opposite)


def test_candidates_of_images_of_several_vectors_are_the_nearest():
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(6, 4, 5, generator=generator), torch.randn(9, 5, generator=generator)
    similarity = (images @ texts.T).amax(1)  # (6, 9)
    for queries, gallery, whole in ((images, texts, similarity), (texts, images, similarity.T)):
        for most in (1, 1 << 24):
            candidates, found = best_candidates(queries, gallery, 3, max_elements=most)
            assert torch.equal(candidates, whole.topk(3, 1).indices)
            torch.testing.assert_close(found, whole.topk(3, 1).values)


def test_equal_captions_are_one_item():
    items = group_captions([0, 0, 1, 2], ['A dog.', 'a cat', 'a dog', 'A  CAT'], 3)
    assert (items.first, items.images_of, items.items_of) == ([0, 1], [[0, 1], [0, 2]], [[0, 1], [0], [1]])
    apart = group_captions([0, 0, 1, 2], None, 3)
    assert (apart.first, apart.images_of) == ([0, 1, 2, 3], [[0], [0], [1], [2]])
    with pytest.raises(ValueError, match='video 1 has no caption'):
        group_captions([0, 2], None, 3, 'video')
    features = torch.eye(3)
    with pytest.raises(ValueError, match='image 1 has no caption'):
        image_text_recall(features, features[:2], [0, 2])
