import re

import pytest

from florence_mm.models.tokenizers import MaskedCLIPTokenizer, RobertaTextTokenizer
from florence_mm.models.tokenizers.words import find_word


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
