"""Hidden states of whole texts in one pass, for training writers and for scoring texts after prompts.

Shape legend: ``U`` images, ``B`` texts, ``T`` tokens of the longest text, ``L`` tokens of the longest prompt with its
text, ``C`` hidden size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from florence_mm.models.tokenizers.protocol import TokenBatch, pad_ids

from .protocol import Writer


def teach_after_prompts(
    model: Writer, image_tokens: Tensor, image_of: Sequence[int], prompts: TokenBatch | None, texts: TokenBatch
) -> Tensor:
    """Compute what :meth:`Writer.teach` returns for a model that reads a prompt as the beginning of its text.

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
    state = model.start_writing(image_tokens, image_of)
    if prompts is None:
        # the last token of a text has no successor, so it is not an input
        return model.write_on(TokenBatch(ids[:, :-1], mask[:, 1:]), state)  # (B, T - 1, C)
    given = prompts.mask.sum(1) - 1  # (B,), without the end
    lengths = (mask.sum(1) - 1).tolist()  # without the start
    longest = max(before + length for before, length in zip(given.tolist(), lengths, strict=True))
    if longest > model.max_text_len:
        raise ValueError(
            f'a prompt and its text have {longest} tokens together, and texts of the model at most '
            f'{model.max_text_len}; shorten one of them or raise max_text_len'
        )
    rows = zip(prompts.input_ids.tolist(), given.tolist(), ids.tolist(), lengths, strict=True)
    together = [[*prompt[:before], *text[1:length]] for prompt, before, text, length in rows]
    hidden = model.write_on(pad_ids(together, model.tokenizer.pad_token_id), state)  # (B, L, C)
    size = hidden.shape[1]
    # the last token of the prompt predicts the first one of the text; places behind a text are of no meaning
    places = (given[:, None] - 1 + torch.arange(ids.shape[1] - 1)).clamp(max=size - 1)  # (B, T - 1)
    places = (places + size * torch.arange(len(ids))[:, None]).flatten()
    taken = hidden.flatten(0, 1).index_select(0, places.to(hidden.device, non_blocking=True))
    return taken.view(len(ids), -1, hidden.shape[2])
