import numpy as np
import pytest
import torch

from florence_mm.visualization.cross_attention import draw_word_attention, word_map


def test_a_map_by_hand():
    # two layers, two heads, three tokens, a grid of one row and two places
    first = torch.tensor([[[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.7, 0.3], [0.4, 0.6]]])
    second = torch.tensor([[[0.5, 0.5], [1.0, 0.0], [0.6, 0.4]], [[0.5, 0.5], [0.6, 0.4], [0.8, 0.2]]])
    attention = torch.stack([first, second])  # (2, 2, 3, 2)
    torch.testing.assert_close(word_map(attention.unsqueeze(3), [1]), torch.tensor([[0.8, 0.2]]))
    torch.testing.assert_close(word_map(attention.unsqueeze(4), [1, 2]), torch.tensor([[0.65], [0.35]]))
    torch.testing.assert_close(word_map(attention[1:].unsqueeze(3), [2]), torch.tensor([[0.7, 0.3]]))
    with pytest.raises(ValueError, match='no attention to draw'):
        word_map(attention[:0].unsqueeze(3), [1])


def test_known_weights_are_drawn_where_they_are():
    image = np.zeros((40, 80, 3), np.uint8)
    weights = torch.zeros(2, 4)
    weights[1, 0] = 0.75
    drawn = draw_word_attention(image, weights, 'red', 'a red two')
    assert drawn.shape == (4 * 40 + 54, 2 * 4 * 80 + 10, 3)
    assert (drawn[:160, :320] == 0).all()  # the picture itself
    panel = drawn[:160, 330:].astype(int)
    red = panel[..., 0] + panel[..., 1]  # dark violet has little of both, yellow much
    middles = red[40::80, 40::80]  # (2, 4)
    assert np.unravel_index(middles.argmax(), middles.shape) == (1, 0)
    assert (np.delete(middles.flatten(), 4) < 20).all() and middles.max() > 200
    # the picture shows through
    bright = draw_word_attention(np.full((40, 80, 3), 255, np.uint8), weights, 'red', 'a red two')
    assert (bright[:160, 330:].astype(int) - panel > 100).all()
    large = draw_word_attention(np.zeros((400, 100, 3), np.uint8), weights, 'red', 'a red two')
    assert large.shape == (454, 210, 3)
    with pytest.raises(ValueError, match='finite values from 0'):
        draw_word_attention(image, weights - 1, 'red', 'a red two')
