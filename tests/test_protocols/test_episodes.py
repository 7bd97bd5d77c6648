"""Few-shot episodes: how they are drawn, and heads trained together against heads trained alone."""

import numpy as np
import pytest
import torch

from florence_mm.errors import DataError
from florence_mm.protocols.episodes import HeadTraining, draw_episode, mean_and_interval, train_heads
from florence_mm.protocols.few_shot import FewShotClassification
from florence_mm.protocols.sets import CD_FSL


def test_an_episode_has_different_images_of_different_classes():
    labels = np.repeat(np.arange(7), [20, 22, 25, 20, 21, 30, 20])
    seen = set()
    for episode in range(50):
        drawn = draw_episode(labels, 5, 5, 15, (0, episode))
        assert drawn.shape == (5, 20) and len(set(drawn.ravel().tolist())) == 100
        classes = labels[drawn]
        assert (classes == classes[:, :1]).all() and len(set(classes[:, 0].tolist())) == 5
        assert np.array_equal(drawn, draw_episode(labels, 5, 5, 15, (0, episode)))
        seen.add(tuple(drawn.ravel().tolist()))
    assert len(seen) == 50
    assert not np.array_equal(draw_episode(labels, 5, 5, 15, (1, 0)), draw_episode(labels, 5, 5, 15, (0, 0)))
    with pytest.raises(DataError, match='7 classes with at least 20 images; an episode needs 5 with 6 \\+ 15'):
        draw_episode(labels, 5, 6, 15, (0, 0))
    with pytest.raises(DataError, match='an episode needs 8 with'):
        draw_episode(labels, 8, 5, 15, (0, 0))


@pytest.mark.parametrize('batch_size', [4, 10, 100])
def test_heads_trained_together_are_heads_trained_alone(batch_size):
    episodes, views, size, channels, ways = 3, 2, 10, 6, 5
    support = torch.randn(episodes, views, size, channels, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(ways).repeat_interleave(2)
    training = HeadTraining(epochs=4, batch_size=batch_size, lr=0.1, momentum=0.9, dropout=0.0)
    weight, bias = train_heads(support, labels, ways, training, seed=5)
    generator = torch.Generator().manual_seed(5)
    heads = [torch.nn.Linear(channels, ways) for _ in range(episodes)]
    for head in heads:
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    optimizers = [torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9) for head in heads]
    for _ in range(4):
        order = torch.rand(episodes, size, generator=generator).argsort(1)
        view = torch.randint(views, (episodes, size), generator=generator)
        for start in range(0, size, batch_size):
            for e, (head, optimizer) in enumerate(zip(heads, optimizers, strict=True)):
                now = order[e, start : start + batch_size]
                x = support[e, view[e, start : start + batch_size], now]
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(head(x), labels[now]).backward()
                optimizer.step()
    for e, head in enumerate(heads):
        torch.testing.assert_close(weight[e], head.weight.data, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(bias[e], head.bias.data, atol=1e-5, rtol=1e-4)


def accuracies(features, labels, **values):
    protocol = FewShotClassification(CD_FSL[1], shots=5, queries=3, episodes=6, **values)
    return protocol._frozen_episodes(features, labels, first=0)


def test_queries_are_judged_by_the_mean_of_both_views():
    labels = np.repeat([0, 1], 10)
    strong = torch.eye(2)[torch.from_numpy(labels)]  # (N, C), and a weaker view that says the other class
    training = HeadTraining(momentum=0.9, dropout=0.0)
    for views in ((strong, -0.5 * strong), (-0.5 * strong, strong)):
        assert accuracies(torch.stack(views), labels, ways=2, training=training) == [1.0] * 6


def test_what_trains_is_not_asked():
    # each image has a channel of its own, so that a head knows nothing of images that it was not trained on
    labels = np.repeat(np.arange(5), 9)
    assert np.mean(accuracies(torch.eye(45)[None], labels, ways=5)) < 0.5


def test_dropout_drops_half_and_keeps_the_mean():
    # after one step from zero the weight is lr times the mean of (target - 1 / W) x, where what is kept is doubled
    ones = torch.ones(1, 1, 1, 4000)
    training = HeadTraining(epochs=1, batch_size=1, lr=1.0, momentum=0.0, dropout=0.5)
    weight, _ = train_heads(ones, torch.tensor([0]), 2, training, seed=0)
    assert set(weight[0, 0].tolist()) == {0.0, 1.0} and set(weight[0, 1].tolist()) == {0.0, -1.0}
    assert 0.45 < weight[0, 0].mean() < 0.55


def test_the_interval_is_of_the_mean():
    # deviation 0.1, four episodes: 1.96 * 0.1 / 2
    assert mean_and_interval(np.array([0.4, 0.6, 0.4, 0.6])) == (0.5, 0.098)
