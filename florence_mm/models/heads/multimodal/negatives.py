"""Negative pairs for image-text matching, drawn by similarity (ALBEF, arXiv 2107.07651, section 3.2; BLIP).

Shape legend: ``b`` pairs of this process, ``B`` pairs to draw from (of this or all processes), ``T`` tokens
of a text, ``S`` image tokens, ``C`` hidden size.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from florence_mm.models.multimodal.batch import FusionBatch, rows_of
from florence_mm.models.tokenizers.protocol import TokenBatch
from florence_mm.ops.collectives import Peers
from florence_mm.ops.nearest_contrastive import nearest_similarities

#: What BLIP's public code adds to each probability, so that no negative is impossible.
LEAST_PROBABILITY = 1e-4


def draw_negatives(logits: Tensor, allowed: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a negative for each row with probabilities proportional to ``softmax(logits) + 1e-4``.

    Args:
        logits: ``(b, B)`` similarities.
        allowed: ``(b, B)`` bool, True where an item is a negative of the row's.
        uniform: ``(b,)`` float64 random numbers from 0 to below 1, which decide what is drawn.

    Returns:
        ``(b,)`` the negatives, and ``(b,)`` bool, whether there is any, without which the negative has no meaning.

    Probabilities of the first row are 0, 1/3 and 2/3, but for the added 1e-4:

    >>> logits = torch.tensor([[5.0, 0.0, 0.6931]]).expand(2, 3)
    >>> draw_negatives(logits, torch.tensor([[False, True, True]] * 2), torch.tensor([0.3, 0.4]).double())
    (tensor([1, 2]), tensor([True, True]))
    """
    weights = (logits.double().softmax(1) + LEAST_PROBABILITY) * allowed  # (b, B)
    ends = weights.cumsum(1)
    # the first item that ends beyond the drawn place; items of weight 0 end where they begin
    drawn = (ends <= uniform.to(ends)[:, None] * ends[:, -1:]).sum(1)
    return drawn.clamp(max=weights.shape[1] - 1), allowed.any(1)


def false_and_true_pairs(batch: FusionBatch, peers: Peers) -> tuple[Tensor, Tensor, Tensor, list[bool]]:
    """Make the true pairs of a batch, and those of each text with a false image and each image with a false text.

    No text that describes an image, or equals one that does, is a negative of it; images are one if they have equal
    pixels, or one ``img_id`` or ``img_path``. A batch of one pair gives that pair alone. Random numbers are drawn on the CPU;
    those of all processes are drawn by the first one, so that they do not depend on the number of processes.

    Args:
        batch: the batch, of equally many pairs on each of the processes.
        peers: the processes from whose pairs negatives are drawn; their image tokens and texts are gathered.

    Returns:
        text tokens ``(n, T, C)``, padding mask ``(n, T)``, image tokens ``(n, S, C)``, and for each of the n pairs
        whether it is a true one.

    Raises:
        ValueError: no pair has negatives.
    """
    image_tokens = batch.image_tokens_of(batch.image_of)  # (b, S, C)
    peers.check_equal_shapes(image_tokens)
    device, own = image_tokens.device, len(batch.samples)
    rows = slice(*((peers.rank + more) * own for more in (0, 1)))  # of this process among the B
    describes = _describes(batch, peers, device)  # (B images, B texts)
    uniform = torch.rand(peers.size * own, 2, dtype=torch.float64).to(device)
    uniform = peers.gather_rows(uniform)[: peers.size * own][rows]  # the first process's
    image_logits, text_logits = _similarities(batch, peers)  # (b, B) each
    texts, has_text = draw_negatives(image_logits, ~describes[rows], uniform[:, 0])
    images, has_image = draw_negatives(text_logits, ~describes.T[rows], uniform[:, 1])
    if len(describes) == 1:
        return batch.text_tokens, batch.tokens.mask, image_tokens, [True]
    if not bool((~describes).any()):
        raise ValueError(
            f'the {len(describes)} pairs of the batch have no negatives, as there is one image or one text; '
            'image-text matching needs batches of several'
        )
    texts, images, has_text, has_image = torch.stack([texts, images, has_text, has_image]).cpu()
    with_image, with_text = (has.nonzero().squeeze(1) for has in (has_image, has_text))  # rows of this process
    texts, images = texts[with_text], images[with_image]

    # (n, S, C): the true images, the false ones of texts, the true ones of false texts
    every_image = peers.gather_learned_rows(image_tokens)  # (B, S, C)
    image_pairs = torch.cat([image_tokens, _rows(every_image, images), _rows(image_tokens, with_text)])
    if peers.size == 1:
        order = torch.cat([torch.arange(own), with_image, texts])
        text_pairs, mask = _rows(batch.text_tokens, order), batch.tokens.mask[order]
    else:
        false = _chosen_texts(batch, texts, peers, device)
        length = max(false.mask.shape[1], batch.tokens.mask.shape[1])
        encoded = batch.model.encode_tokens(false) if len(texts) else batch.text_tokens[:0]
        parts = batch.text_tokens, _rows(batch.text_tokens, with_image), encoded
        text_pairs = torch.cat([F.pad(part, (0, 0, 0, length - part.shape[1])) for part in parts])
        masks = batch.tokens.mask, batch.tokens.mask[with_image], false.mask
        mask = torch.cat([F.pad(part, (0, length - part.shape[1])) for part in masks])
    return text_pairs, mask, image_pairs, [True] * own + [False] * (len(mask) - own)


def _rows(x: Tensor, rows: Tensor) -> Tensor:
    return x.index_select(0, rows.to(x.device, non_blocking=True))


@torch.no_grad()
def _similarities(batch: FusionBatch, peers: Peers) -> tuple[Tensor, Tensor]:
    """Logits ``(b, B)`` from the images of this process to texts, and from its texts to images."""
    features = batch.features
    image, text = rows_of(features.image, batch.image_of), features.text  # (b, D) each; (b, V, D) of V vectors
    return (
        features.scale * nearest_similarities(image, peers.gather_rows(text)),
        features.scale * nearest_similarities(peers.gather_rows(image), text).T,
    )


def _describes(batch: FusionBatch, peers: Peers, device: torch.device) -> Tensor:
    """Whether the image of each of B pairs is described by the text of each, ``(B, B)`` bool."""
    texts = peers.gather_rows(torch.tensor(batch.text_labels).to(device))  # (B,)
    # equal images have equal sums; that two others have too is as unlikely as harmless
    sums = batch.images.flatten(1).sum(1, dtype=torch.float64)
    images = peers.gather_rows(rows_of(sums, batch.image_of))  # (B,)
    same_image, same_text = (x[:, None] == x for x in (images, texts))
    if (labels := batch.image_labels()) is not None:  # pixels of one image differ after augmentation
        labels = peers.gather_rows(torch.tensor(labels).to(device))
        same_image = same_image | (labels[:, None] == labels)
    return same_image.float() @ same_text.float() > 0


def _chosen_texts(batch: FusionBatch, chosen: Tensor, peers: Peers, device: torch.device) -> TokenBatch:
    """The texts of some of the B pairs, without padding behind the longest; at least one column."""
    short = batch.model.max_text_len - batch.tokens.mask.shape[1]
    ids, mask = (
        peers.gather_rows(F.pad(x, (0, short)).to(device)).cpu()[chosen]
        for x in (batch.tokens.input_ids, batch.tokens.mask.to(torch.uint8))
    )
    longest = int(mask.sum(1).amax()) if len(mask) else 1
    return TokenBatch(ids[:, :longest], mask[:, :longest].bool())
