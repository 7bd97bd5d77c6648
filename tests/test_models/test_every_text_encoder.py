"""What holds for every registered text encoder; a new one is tested by existing, see ``instances.py``.

Company and padding are those of ``test_every_model.py``; here it is who sees whom, and what is kept of earlier tokens.
"""

import functools

import pytest
import torch
from instances import build, find_smalls, names_of
from kinds import TextTower, TokenEncoder

from florence_mm.models.generation import CacheStack
from florence_mm.models.generation import cache as cache_module

EXACT = {'rtol': 1e-9, 'atol': 1e-9}  # rounding of fp64 is 1e-16
TOKENS = 7
every_encoder = pytest.mark.parametrize('name', names_of(TokenEncoder))


@functools.cache
def encoder(name):
    return build(name)


def texts(name, count=2):
    """Ids of texts of seven tokens, and their mask."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, encoder(name).vocab_size - 1, (count, TOKENS), generator=generator)
    return ids, torch.ones_like(ids, dtype=torch.bool)


def seen_by(encode, ids):
    """For each token which tokens change its feature, ``(tokens, tokens)`` bool."""
    features = encode(ids)
    changed = []
    for place in range(ids.shape[1]):
        other = ids.clone()
        other[:, place] = ids[:, place] % 50 + 6  # another ordinary id
        assert (other[:, place] != ids[:, place]).all()
        changed.append((encode(other) - features).abs().amax((0, 2)) > 1e-9)
    return torch.stack(changed, 1)


@every_encoder
@torch.no_grad()
def test_causal_sees_no_later_token_and_every_earlier_one(name):
    ids, mask = texts(name)
    seen = seen_by(lambda ids: encoder(name)(ids, mask, causal=True), ids)
    assert torch.equal(seen, torch.ones(TOKENS, TOKENS).tril().bool())


@every_encoder
@torch.no_grad()
def test_else_a_token_sees_all_of_its_text(name):
    ids, mask = texts(name)
    seen = seen_by(lambda ids: encoder(name)(ids, mask), ids)
    wanted = torch.ones(TOKENS, TOKENS)
    assert torch.equal(seen, (wanted.tril() if find_smalls()[name].kind.always_causal else wanted).bool())


@every_encoder
@pytest.mark.parametrize('cuts', [[1] * TOKENS, [2, 1, 4], [TOKENS]])
@torch.no_grad()
def test_kept_keys_and_values_change_nothing(name, cuts):
    ids, mask = texts(name)
    cache = CacheStack()
    parts = [
        encoder(name)(part, real, causal=True, cache=cache)
        for part, real in zip(ids.split(cuts, 1), mask.split(cuts, 1), strict=True)
    ]
    assert cache.length == TOKENS
    torch.testing.assert_close(torch.cat(parts, 1), encoder(name)(ids, mask, causal=True), **EXACT)


@every_encoder
@torch.no_grad()
def test_rows_go_on_from_other_rows(name, monkeypatch):
    monkeypatch.setattr(cache_module, '_FIRST_ROOM', 2)  # so that it grows between
    ids, mask = texts(name, 3)
    cache, whole = CacheStack(), ids[:, :2]
    encoder(name)(whole, mask[:, :2], causal=True, cache=cache)
    for place, chosen in enumerate(([2, 0, 1], [2, 0, 2, 1], [0, 0], [1, 0]), 2):
        cache.select(torch.tensor(chosen))
        rows = torch.arange(len(chosen)) % 3
        last, real = ids[rows, place : place + 1], mask[rows, place : place + 1]
        got = encoder(name)(last, real, causal=True, cache=cache)
        whole = torch.cat([whole[chosen], last], 1)
        expected = encoder(name)(whole, torch.ones_like(whole, dtype=torch.bool), causal=True)
        torch.testing.assert_close(got, expected[:, -1:], **EXACT)


@every_encoder
@torch.no_grad()
def test_more_tokens_than_positions_are_refused(name):
    length = encoder(name).context_length
    ids = torch.full((1, length), 6)
    assert encoder(name)(ids, ids > 0).shape == (1, length, encoder(name).embed_dims)
    longer = torch.full((1, length + 1), 6)
    with pytest.raises(ValueError, match=f'texts have {length + 1} tokens and .* takes {length}; lower'):
        encoder(name)(longer, longer > 0)
    cache = CacheStack()
    encoder(name)(ids, ids > 0, causal=True, cache=cache)
    with pytest.raises(ValueError, match=f'texts have {length + 1} tokens and .* takes {length}; lower'):
        encoder(name)(ids[:, :1], ids[:, :1] > 0, causal=True, cache=cache)


@pytest.mark.parametrize('name', names_of(TextTower))
@torch.no_grad()
def test_a_text_of_two_towers_is_its_tokens_to_the_end(name):
    tower = encoder(name)
    assert tower(torch.tensor([[tower.vocab_size - 1]])).shape == (1, tower.embed_dims)
    row = find_smalls()[name].kind.items(tower)[0]
    feature = tower(torch.tensor([row]))
    for place in range(len(row) - 1):
        other = [*row]
        other[place] = row[place] % 50 + 6
        assert (tower(torch.tensor([other])) - feature).abs().max() > 1e-9
    # a second end is none
    twice = [*row, *row]
    torch.testing.assert_close(tower(torch.tensor([twice])), feature, **EXACT)
    with pytest.raises(ValueError, match=f'at most {tower.context_length} tokens'):
        tower(torch.ones(1, tower.context_length + 1, dtype=torch.int64))
