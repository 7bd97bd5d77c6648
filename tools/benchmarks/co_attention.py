"""Speed of a pair of co-attention layers compared with transformers' BERT layers, on shared weights.

python tools/benchmarks/co_attention.py [--only NAME] [--rounds N] [--out FILE]

768 channels, 12 heads; 4 pairs of 144 image tokens (384 pixels) and 50 text tokens, METER's ``max_text_len``. The peer
is ``BertLayer`` with cross-attention, with the attention that transformers picks by itself (fused: ``sdpa``) and with
METER's (``eager``). ``full``: all text tokens are real; ``captions``: 12, 50, 20 and 31 of them; ``questions``: 8, 12,
9 and 7.
"""

import sys

import torch
from common import Case, Pair, main
from torch import Tensor, nn

import florence_mm  # noqa: F401  (patches the stack before the peers are imported)
from florence_mm.models.checkpoints.bert_layers import join_projections
from florence_mm.models.multimodal.co_attention import CoAttentionStacks

PAIRS, TEXT, IMAGE = 4, 50, 144
LENGTHS = {'full': (TEXT,) * PAIRS, 'captions': (12, 50, 20, 31), 'questions': (8, 12, 9, 7)}


def _peer_layers(attention: str) -> nn.ModuleDict:
    """A text and an image layer, under the names of ours."""
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLayer

    config = BertConfig(is_decoder=True, add_cross_attention=True, attn_implementation=attention)  # dropout 0.1
    layers = {f'{name}_layers': nn.ModuleList([BertLayer(config, layer_idx=0)]) for name in ('text', 'image')}
    layers = nn.ModuleDict(layers)
    for layer in layers.modules():
        # transformers says since when a decoder may look ahead, in its models: layers alone have to be told
        if hasattr(layer, 'is_causal'):
            layer.is_causal = False
    return layers


def _set_dropout(layers: nn.Module, rate: float) -> None:
    for layer in layers.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = rate
        for name in ('drop_rate', 'attn_drop_rate'):
            if hasattr(layer, name):
                setattr(layer, name, rate)


def _pair(attention: str, lengths: tuple[int, ...], train: bool) -> Pair:
    """One layer of both stacks, forward or forward and backward.

    Where it trains, dropout is the configured one, 0.1, except in the first call of each side: that is the one whose
    results are compared.
    """
    torch.manual_seed(0)
    peer = _peer_layers(attention).train(train)
    ours = CoAttentionStacks(num_layers=1).train(train)
    ours.load_state_dict(join_projections(peer.state_dict()))
    text, image = torch.randn(PAIRS, TEXT, 768), torch.randn(PAIRS, IMAGE, 768)
    real = torch.arange(TEXT) < torch.tensor(lengths)[:, None]  # (B, L)
    weights = [torch.randn_like(text) * real[..., None], torch.randn_like(image)]

    def run_ours(text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        return ours(text, image, real)

    def run_peer(text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        # made once for all layers, as transformers' models do
        mask = None
        if not real.all():
            mask = torch.zeros(PAIRS, 1, 1, TEXT).masked_fill(~real[:, None, None], torch.finfo(text.dtype).min)
        (for_text,), (for_image,) = peer['text_layers'], peer['image_layers']
        out = for_text(text, mask, image, None), for_image(image, None, text, mask)
        return out[0] * real[..., None], out[1]

    def infer(run) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            return run(text, image)

    compared: set[nn.Module] = set()

    def step(run, layers: nn.Module) -> list[Tensor]:
        _set_dropout(layers, 0.1 if layers in compared else 0.0)
        compared.add(layers)
        layers.zero_grad(set_to_none=True)
        leaves = [x.clone().requires_grad_() for x in (text, image)]
        outs = run(*leaves)
        torch.autograd.backward(outs, weights)
        return [*outs, *(leaf.grad for leaf in leaves)]

    if train:
        return Pair(lambda: step(run_ours, ours), lambda: step(run_peer, peer))
    return Pair(lambda: infer(run_ours), lambda: infer(run_peer))


def cases() -> list[Case]:
    """The comparisons of this file, with the bars the project set itself."""
    return [
        Case(
            f'co_attention_{text}_{kind}_vs_{attention}',
            bar,
            lambda a=attention, n=lengths, t=kind == 'train': _pair(a, n, t),
            rounds=11,
        )
        for kind, bar in (('infer', 1.1), ('train', 1.0))
        for attention in ('sdpa', 'eager')
        for text, lengths in LENGTHS.items()
    ]


if __name__ == '__main__':
    sys.exit(main(cases()))
