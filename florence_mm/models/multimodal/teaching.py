"""Hidden states of whole texts in one pass, for training writers and for scoring texts after prompts.

Shape legend: ``U`` images, ``B`` texts, ``T`` tokens of the longest text, ``L`` tokens of the longest prompt with its
text, ``C`` hidden size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from florence_mm.models.generation.state import WriterState
from florence_mm.models.tokenizers.protocol import TokenBatch, pad_ids

from .batch import even_groups, images_of_rows
from .protocol import Writer


def teach_after_prompts(
    model: Writer, image_tokens: Tensor, image_of: Sequence[int], prompts: TokenBatch | None, texts: TokenBatch
) -> Tensor:
    """Compute what :meth:`Writer.teach` returns for a model that reads a prompt as the beginning of its text.

    Without gradients, a prompt about one image that several texts follow, such as listed answers, is computed once.

    Args:
        model: the model.
        image_tokens: ``(U, S, C)``.
        image_of: index of the image of each of the B texts.
        prompts: B prompts, of any lengths, with start and end tokens; None: no prompts.
        texts: B texts with start and end tokens.

    Raises:
        ValueError: a prompt and its text are together longer than the model's texts.
    """
    ids, mask = texts.input_ids, texts.mask  # (B, T)
    if prompts is None:
        return model.write_on(texts.without_last(), model.start_writing(image_tokens, image_of))  # (B, T - 1, C)
    given = (prompts.mask.sum(1) - 1).tolist()  # without the end
    lengths = (mask.sum(1) - 1).tolist()  # without the start
    longest = max(before + length for before, length in zip(given, lengths, strict=True))
    if longest > model.max_text_len:
        raise ValueError(
            f'a prompt and its text have {longest} tokens together, and texts of the model at most '
            f'{model.max_text_len}; shorten one of them or raise max_text_len'
        )
    beginnings = [tuple(row[:count]) for row, count in zip(prompts.input_ids.tolist(), given, strict=True)]
    if not torch.is_grad_enabled() and 2 * len(set(zip(image_of, beginnings, strict=True))) <= len(ids):
        shared = _teach_with_shared_prompts(model, image_tokens, image_of, beginnings, texts)
        if shared is not None:
            return shared
    rows = zip(beginnings, ids.tolist(), lengths, strict=True)
    together = pad_ids([[*prompt, *text[1:length]] for prompt, text, length in rows], model.tokenizer.pad_token_id)
    hidden = model.write_on(together, model.start_writing(image_tokens, image_of))  # (B, L, C)
    size = hidden.shape[1]
    # the last token of the prompt predicts the first one of the text; places behind a text are of no meaning
    first = torch.tensor(given)[:, None] - 1
    places = (first + torch.arange(ids.shape[1] - 1)).clamp(max=size - 1)  # (B, T - 1)
    places = (places + size * torch.arange(len(ids))[:, None]).flatten()
    taken = hidden.flatten(0, 1).index_select(0, places.to(hidden.device, non_blocking=True))
    return taken.view(len(ids), -1, hidden.shape[2])


def _teach_with_shared_prompts(
    model: Writer,
    image_tokens: Tensor,
    image_of: Sequence[int],
    beginnings: Sequence[tuple[int, ...]],
    texts: TokenBatch,
) -> Tensor | None:
    """Compute each different prompt about an image once, and go on from its cached keys and values with its texts.

    Returns:
        the hidden states; None if the model has no cache.
    """
    hidden = image_tokens.new_zeros(len(beginnings), texts.input_ids.shape[1] - 1, model.hidden_size)
    for rows in even_groups(image_of, list(map(len, beginnings))):
        tokens, places = images_of_rows(image_tokens, [image_of[row] for row in rows])
        asked = [(place, beginnings[row]) for place, row in zip(places, rows, strict=True)]
        different = {one: number for number, one in enumerate(dict.fromkeys(asked))}
        state = model.start_writing(tokens, [place for place, _ in different], cached=True)
        if not state.caches:
            return None
        last = _write_all(model, [prompt for _, prompt in different], state)[:, -1]
        of_rows = torch.tensor([different[one] for one in asked])
        on_device = torch.tensor(rows).to(hidden.device)
        hidden[on_device, 0] = last.index_select(0, of_rows.to(last.device)).to(hidden)
        size = int(texts.mask[rows].sum(1).max()) - 2  # what is read of the longest text
        if size:
            going = model.start_writing(tokens, places, cached=True)
            for cache in state.caches:
                cache.select(of_rows)
            going.caches = state.caches
            read = _write_all(model, texts.input_ids[rows, 1 : size + 1], going)
            hidden[on_device, 1 : size + 1] = read.to(hidden)
    return hidden


def _write_all(model: Writer, ids: Tensor | Sequence[Sequence[int]], state: WriterState) -> Tensor:
    """Give a model ids ``(rows, n)``, of which none is hidden: from left to right, padding changes none before it."""
    ids = torch.as_tensor(ids)
    return model.write_on(TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool)), state)
