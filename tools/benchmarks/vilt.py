"""Speed of ViLT compared with transformers, on shared weights: words and a picture of 384 pixels, masked words.

python tools/benchmarks/vilt.py [--only NAME] [--rounds N] [--out FILE]
"""

import sys
from collections.abc import Callable
from functools import partial

import torch
from common import Case, Pair, main
from torch import nn
from torch.nn import functional as F

import florence_mm  # noqa: F401  (patches the stack before the peers are imported)
from florence_mm.models.checkpoints.formats import convert_state_dict
from florence_mm.models.multimodal import ViLT
from florence_mm.models.tokenizers.protocol import TokenBatch

_WORDS, _SIDE, _LENGTH = 30522, 384, 40


def _base(batch: int, train: bool = False) -> Pair:
    """ViLT-B/32 without dropout: fused words; in training both passes of the loss of masked words."""
    from transformers import ViltConfig, ViltForMaskedLM

    torch.manual_seed(0)
    theirs = ViltForMaskedLM(ViltConfig())
    ours = ViLT(
        {'type': 'BertTextTokenizer'},
        text={'vocab_size': _WORDS},
        layer_norm_eps=1e-12,  # of transformers
        max_patches=None,
        drop_rate=0.0,
        heads={'mlm': {'type': 'FusionMLMHead', 'tied': True, 'vocab_size': _WORDS}},
    )
    ours.load_state_dict(convert_state_dict({k: v.clone() for k, v in theirs.state_dict().items()})[1])
    for model in (ours, theirs):
        model.train(train)
    images, ids = torch.randn(batch, 3, _SIDE, _SIDE), torch.randint(1000, _WORDS, (batch, _LENGTH))
    lengths = torch.linspace(_LENGTH, _LENGTH // 2, batch).long()
    mask = torch.arange(_LENGTH) < lengths[:, None]
    ids = ids.where(mask, 0)
    chosen = mask & (torch.arange(_LENGTH) % 7 == 1)  # 15 % of the words
    tokens = TokenBatch(ids, mask)

    def our_words() -> torch.Tensor:
        return ours.fuse(ours.encode_tokens(tokens), mask, ours.encode_image(images)).text

    def their_words() -> torch.Tensor:
        states = theirs.vilt(input_ids=ids, attention_mask=mask.long(), pixel_values=images).last_hidden_state
        return states[:, :_LENGTH] * mask[..., None]

    if not train:
        return Pair(*(torch.inference_mode()(call) for call in (our_words, their_words)))

    def our_loss() -> torch.Tensor:
        return F.cross_entropy(ours.heads['mlm'](our_words()[chosen]), ids[chosen])

    def their_loss() -> torch.Tensor:
        labels = ids.where(chosen, -100)
        return theirs(input_ids=ids, attention_mask=mask.long(), pixel_values=images, labels=labels).loss

    def step(model: nn.Module, loss: Callable, words: str) -> list[torch.Tensor]:
        model.zero_grad(set_to_none=True)
        out = loss()
        out.backward()
        return [out, model.get_parameter(words).grad]

    return Pair(
        partial(step, ours, our_loss, 'token_type_embeddings.weight'),
        partial(step, theirs, their_loss, 'vilt.embeddings.token_type_embeddings.weight'),
    )


def cases() -> list[Case]:
    """The comparisons of this file, with the bars the project set itself."""
    return [
        Case('vilt_base_384_infer_vs_transformers', 1.15, partial(_base, 1)),
        Case('vilt_base_384_infer_batch_vs_transformers', 1.15, partial(_base, 4)),
        Case('vilt_base_384_train_vs_transformers', 1.0, partial(_base, 4, train=True)),
    ]


if __name__ == '__main__':
    sys.exit(main(cases()))
