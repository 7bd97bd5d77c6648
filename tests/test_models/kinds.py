"""What goes into the classes of a kind, and what comes out, for tests that treat all of them alike.

An *item* is what a class takes several of in a batch: an image, a text as ids, an image with its text. Outputs are
one dict an item, of tensors, numbers and texts. A family with items of its own has a kind of its own in its file.

Shape legend: ``B`` items, ``C`` channels, ``T`` tokens.
"""

import torch

from florence_mm.models.tokenizers.protocol import TokenBatch


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def type_of(module):
    """Of the weights, or of the buffers."""
    return next(tensor.dtype for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point())


def batch_of(tensors, shape):
    """``(B, ...)``; of one tensor a view, so that what is written into a batch is seen in its item."""
    if len(tensors) == 1:
        return tensors[0][None]
    return torch.stack(tensors) if tensors else torch.zeros(0, *shape)


def rows_with(rows, length, fill):
    """Rows of ids of some length, with what ``fill`` gives behind them; and where they are real, ``(B, length)``."""
    ids = [[*row, *(fill(place) for place in range(len(row), length))] for row in rows]
    mask = [[place < len(row) for place in range(length)] for row in rows]
    shape = (len(rows), length)
    return torch.tensor(ids, dtype=torch.int64).view(shape), torch.tensor(mask, dtype=torch.bool).view(shape)


class Kind:
    """Base of kinds."""

    #: its outputs can be had with more padding behind texts
    pads = False
    #: outputs that are chosen among a few: near numbers can give others
    discrete = ()

    def config(self, config):
        """The config to build from that of a small instance."""
        return config

    def items(self, module):
        """Three items that differ."""
        raise NotImplementedError

    def outputs(self, module, items):
        """What the module gives for a batch of items, one dict an item."""
        raise NotImplementedError

    def loss(self, module, items):
        """What a training step brings down; of a part of a model something that depends on all that it gives."""
        total = 0
        for number, output in enumerate(self.outputs(module, items)):
            for place, value in enumerate(output.values()):
                value = value.to(torch.promote_types(value.dtype, torch.float32))
                total = total + (value * numbers(*value.shape, seed=10 * number + place).to(value)).sum()
        return total


class Backbone(Kind):
    """Images or clips to maps of features.

    Args:
        shape: of an item, without B.
    """

    def __init__(self, shape=(3, 32, 40)):
        self.shape = shape

    def items(self, module):
        return [numbers(*self.shape, seed=seed).to(type_of(module)) for seed in range(3)]

    def outputs(self, module, items):
        maps = module(batch_of(items, self.shape).to(type_of(module)))
        maps = maps if isinstance(maps, tuple | list) else [maps]
        assert all(len(one) == len(items) for one in maps)
        return [{f'map {n}': one[row] for n, one in enumerate(maps)} for row in range(len(items))]


class DataPreprocessor(Kind):
    """Images to normalised ones."""

    def items(self, module):
        return [(numbers(3, 6, 8, seed=seed) * 60 + 120).to(type_of(module)) for seed in range(3)]

    def outputs(self, module, items):
        images = items if len(items) > 1 else batch_of(items, (3, 6, 8))  # both ways in which it takes them
        return [{'inputs': one} for one in module({'inputs': images, 'data_samples': None})['inputs']]


class RegionPreprocessor(Kind):
    """Regions of an image, of any number, to padded ones with a column that says which are real."""

    pads = True

    def items(self, module):
        return [numbers(count, 9, seed=count) for count in (4, 2, 3)]

    def outputs(self, module, items, padding=0):
        if not items:
            return []
        longest = numbers(max(map(len, items)) + padding, 9)
        found = module({'inputs': [*items, longest]})['inputs'][: len(items)]
        return [{'regions': one[: len(item)]} for one, item in zip(found, items, strict=True)]


class TextTower(Kind):
    """Ids to one feature a text; a text ends at the first largest id."""

    pads = True

    def items(self, module):
        end = module.vocab_size - 1
        drawn = torch.randint(1, end, (3, 8), generator=torch.Generator().manual_seed(0)).tolist()
        return [[*row[:length], end] for row, length in zip(drawn, (7, 3, 5), strict=True)]

    def outputs(self, module, items, padding=0):
        length = max(map(len, items), default=1) + padding
        ids, _ = rows_with(items, length, lambda place: place % 5 if padding else 0)
        return [{'feature': feature} for feature in module(ids)]


class TokenEncoder(Kind):
    """Ids and padding mask to a feature a token, all tokens in view or those before alone.

    Args:
        always_causal: only those before, without being told.
    """

    pads = True

    def __init__(self, always_causal=False):
        self.always_causal = always_causal

    def items(self, module):
        drawn = torch.randint(5, module.vocab_size - 1, (3, 8), generator=torch.Generator().manual_seed(0)).tolist()
        items = [row[:length] for row, length in zip(drawn, (8, 3, 5), strict=True)]
        items[0][2] = module.vocab_size - 1  # a mask token, where it has an id of its own
        return items

    def outputs(self, module, items, padding=0):
        ids, mask = rows_with(items, max(map(len, items), default=1) + padding, lambda place: 5 + place % 7)
        seen = {'tokens': module(ids, mask), 'causal tokens': module(ids, mask, causal=True)}
        return [{key: value[row, : len(item)] for key, value in seen.items()} for row, item in enumerate(items)]


class Language(Kind):
    """Ids behind embeddings to logits of the next ids, of language models."""

    pads = True

    def items(self, model):
        before = [numbers(3, model.embed_dims, seed=seed).to(type_of(model)) for seed in range(3)]
        drawn = torch.randint(5, 40, (3, 8), generator=torch.Generator().manual_seed(0)).tolist()
        return [(one, row[:length]) for one, row, length in zip(before, drawn, (8, 3, 5), strict=True)]

    def outputs(self, model, items, padding=0):
        if not items:
            return []
        ids, _ = rows_with([row for _, row in items], max(len(row) for _, row in items) + padding, lambda place: 5)
        before = model.read(torch.stack([one for one, _ in items]).to(type_of(model)))
        logits = model.next_logits(ids, before)
        return [{'logits': one[: len(row)]} for one, (_, row) in zip(logits, items, strict=True)]


class Tokenizer(Kind):
    """Texts to ids: what ``TextTokenizer`` promises."""

    def make(self, build, max_length):
        """A tokenizer for texts of at most so many tokens, and the function from texts to ids and mask."""
        tokenizer = build()
        return tokenizer, lambda texts: tokenizer(texts, max_length)

    def special(self, tokenizer):
        """Ids of start, end and padding."""
        return tokenizer.start_token_id, tokenizer.end_token_id, tokenizer.pad_token_id


class TowerTokenizer(Tokenizer):
    """Texts to ids of one length, as the text encoder of two towers takes them."""

    def make(self, build, max_length):
        tokenizer = build(context_length=max_length)

        def tokenize(texts):
            ids = tokenizer(texts)
            assert ids.shape == (len(texts), max_length)
            mask = torch.arange(max_length) <= ids.argmax(1)[:, None]
            longest = int(mask.sum(1).max())
            assert not ids[:, longest:].any()
            return TokenBatch(ids[:, :longest], mask[:, :longest])

        return tokenizer, tokenize

    def special(self, tokenizer):
        return tokenizer.start_id, tokenizer.end_id, 0
