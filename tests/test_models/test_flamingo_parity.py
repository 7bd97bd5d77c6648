"""Flamingo against open_flamingo 2.0.1: resampler, gated blocks, masks and the loss inside language models.

They run where open_flamingo is installed, ``pip install --no-deps open-flamingo==2.0.1 einops einops-exts``.
``test_flamingo.py`` has values by hand that need none.
"""

import pytest
import torch
from mmpretrain.structures import DataSample
from public_open_flamingo import LANGUAGE, ours, theirs

from florence_mm.models.heads.multimodal.documents import learned_places

pytest.importorskip('open_flamingo', reason='compares with open-flamingo 2.0.1')
CLOSE = {'rtol': 1e-5, 'atol': 1e-5}
DOCUMENTS = [
    'two dogs<|endofchunk|><image>a red two<|endofchunk|><image>is it<|endofchunk|>',
    '<image>a dog<|endofchunk|>by it<image>no<|endofchunk|><image>two',
    'no picture<|endofchunk|><image>a',
]
COUNTS = [2, 3, 1]


def samples(documents=DOCUMENTS, counts=COUNTS, **fields):
    return [DataSample(document=d, num_pictures=c, **fields) for d, c in zip(documents, counts, strict=True)]


def both(kind, every):
    model = ours(kind, every)
    return model, theirs(model, every)


@pytest.mark.parametrize(('kind', 'every'), [('opt', 1), ('opt', 2), ('llama', 4), ('gpt_neox', 3)])
def test_the_loss_and_its_gradients_are_theirs(kind, every):
    model, peer = both(kind, every)
    pictures = torch.randn(3, 3, 3, 32, 24)  # (B, 3, M, H, W)
    tokens = model.tokenizer.tokenize_documents(DOCUMENTS, 60)
    labels = tokens.input_ids.masked_fill(~learned_places(tokens, model.tokenizer), -100)
    loss = model(pictures, samples(), mode='loss')['loss_caption']
    vision = pictures.transpose(1, 2)[:, :, None]  # (B, M, 1, 3, H, W)
    expected = peer(vision, tokens.input_ids, tokens.mask.long(), labels=labels).loss
    torch.testing.assert_close(loss, expected, **CLOSE)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(model.resampler.latents.grad, peer.perceiver.latents.grad, **CLOSE)
    block, layer = model.blocks[str(every - 1)], peer.lang_encoder.gated_cross_attn_layers[every - 1]
    torch.testing.assert_close(block.query.weight.grad, layer.attn.to_q.weight.grad, **CLOSE)
    torch.testing.assert_close(block.attn_gate.grad, layer.attn_gate.grad, **CLOSE)
    marks = peer.lang_encoder.get_input_embeddings().weight.grad[-2:]
    torch.testing.assert_close(model.marks.marks.grad, marks, **CLOSE)
    assert kind in LANGUAGE and bool((loss > 1).item())


@torch.no_grad()
def test_resampler_and_hidden_states_are_theirs():
    model, peer = both('opt', 2)
    pictures = torch.randn(2, 3, 32, 24)
    latents = model.encode_image(pictures)
    features = model.image_encoder(pictures).flatten(2).transpose(1, 2)
    torch.testing.assert_close(latents, peer.perceiver(features[:, None, None])[:, 0], **CLOSE)
    tokens = model.tokenizer.tokenize_documents(DOCUMENTS[:1], 60)
    hidden = model.read_documents(latents, [[0, 1]], tokens)
    logits = peer(pictures[None, :, None], tokens.input_ids, tokens.mask.long()).logits
    torch.testing.assert_close(model.heads['caption'](hidden[0]), logits[0], **CLOSE)


def their_labels(ids, image, end):
    """The rule of open_flamingo's training, in its words: first picture, then from each end to the next picture."""
    labels = ids.clone()
    for row in labels:
        place = 0
        while place < len(row) and row[place] != image:
            row[place] = -100
            place += 1
        for chunk_end in torch.where(row == end)[0].tolist():
            place = chunk_end + 1
            while place < len(row) and row[place] != image:
                row[place] = -100
                place += 1
    labels[labels == image] = -100
    return labels


def test_tokens_without_loss_are_theirs():
    model = ours()
    tokens = model.tokenizer.tokenize_documents(DOCUMENTS[:2], 60)
    expected = their_labels(tokens.input_ids, model.tokenizer.image_id, model.tokenizer.chunk_end_id)
    learned = learned_places(tokens, model.tokenizer)
    assert ((expected != -100) & tokens.mask).equal(learned)
