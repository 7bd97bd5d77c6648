import re

import numpy as np
import pytest
import torch

from florence_mm.models.multimodal.co_attention import CrossWeights
from florence_mm.models.tokenizers import MaskedCLIPTokenizer, RobertaTextTokenizer
from florence_mm.visualization.cross_attention import draw_word_attention, find_word, word_map


@pytest.mark.parametrize('tokenizer', [MaskedCLIPTokenizer(vocab_size=600), RobertaTextTokenizer()])
def test_words_are_found_with_all_their_tokens(tokenizer):
    text = 'Is a red two left of another two?'
    ids = tokenizer([text], 70).input_ids[0]
    for word, times in (('red', 1), ('Two', 2), ('is', 1), ('another', 1), ('left', 1)):
        places = find_word(word, ids, tokenizer)
        found = re.sub(r'\W', '', tokenizer.decode(ids[places]))  # one after the other
        assert found.casefold() == word.casefold() * times
        assert len(places) == times * len(places) // times and 0 not in places and len(ids) - 1 not in places
    with pytest.raises(ValueError, match="'tw' is not in the text.*it has is, a, red, two, left, of, another"):
        find_word('tw', ids, tokenizer)
    with pytest.raises(ValueError, match="'' is not in the text"):
        find_word('', ids, tokenizer)
    quoted = tokenizer(['the “Red” two'], 70).input_ids[0]
    assert re.sub(r'\W', '', tokenizer.decode(quoted[find_word('red', quoted, tokenizer)])).casefold() == 'red'


def test_a_map_by_hand():
    # two layers, two heads, three tokens, a grid of one row and two places
    first = torch.tensor([[[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.7, 0.3], [0.4, 0.6]]])
    second = torch.tensor([[[0.5, 0.5], [1.0, 0.0], [0.6, 0.4]], [[0.5, 0.5], [0.6, 0.4], [0.8, 0.2]]])
    attention = {n: CrossWeights(w[None], w[None]) for n, w in ((0, first), (3, second))}
    torch.testing.assert_close(word_map(attention, [1], (1, 2)), torch.tensor([[0.8, 0.2]]))
    torch.testing.assert_close(word_map(attention, [1, 2], (2, 1)), torch.tensor([[0.65], [0.35]]))
    torch.testing.assert_close(word_map({3: attention[3]}, [2], (1, 2)), torch.tensor([[0.7, 0.3]]))
    with pytest.raises(ValueError, match='grid of 2 x 2 places is not that of 2 image tokens'):
        word_map(attention, [1], (2, 2))
    with pytest.raises(ValueError, match='no attention to draw'):
        word_map({}, [1], (1, 2))


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
