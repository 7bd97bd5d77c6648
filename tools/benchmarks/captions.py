"""Speed of captions with cached keys and values, compared with recomputing all words at each step.

python tools/benchmarks/captions.py [--only NAME] [--rounds N] [--out FILE]

"Ours" uses the cache, "peer" recomputes (the same model and weights, ``cached=False``); beam search with three beams
for one image, random weights. The micro model is that of the embedded captions with room for longer texts; the base
model is METER-CoSwin-T with RoBERTa-base's layers, six co-attention layers of 768 channels and 50,265 words. Ids are
compared.
"""

import sys
from collections.abc import Callable

import torch
from common import Case, Pair, main

import florence_mm  # noqa: F401  (patches the stack before other packages are imported)
from florence_mm.models.multimodal import METER

_CONTEXT = 256  # longest text in tokens


def _micro() -> METER:
    return METER(
        image_encoder={'type': 'CoSwin', 'arch': 'micro', 'img_size': 64, 'patch_size': 4, 'out_indices': (2,)},
        text_encoder={
            'type': 'CLIPTokenEncoder',
            'tower': {'arch': 'micro', 'vocab_size': 4096, 'context_length': _CONTEXT},
        },
        tokenizer={'type': 'MaskedCLIPTokenizer', 'vocab_size': 4096},
        fusion={'hidden_size': 96, 'num_layers': 2, 'num_heads': 4, 'mlp_ratio': 2.0, 'init_std': 96**-0.5},
        heads={'caption': {'type': 'FusionCaptionHead', 'num_beams': 3}},
        max_text_len=_CONTEXT,
    )


def _base() -> METER:
    return METER(
        image_encoder={'type': 'CoSwin', 'arch': 'tiny', 'img_size': 224},
        text_encoder={'type': 'RobertaTextEncoder', 'config': {}},
        tokenizer={'type': 'RobertaTextTokenizer'},
        heads={'caption': {'type': 'FusionCaptionHead', 'num_beams': 3, 'vocab_size': 50265}},
        max_text_len=_CONTEXT,
    )


def _writing(make: Callable[[], METER], size: int, tokens: int) -> Pair:
    torch.manual_seed(0)
    model = make().eval()
    head = model.heads.caption
    head.min_length = head.max_length = tokens
    with torch.inference_mode():
        image_tokens = model.encode_image(torch.randn(1, 3, size, size))

    def write(cached: bool) -> torch.Tensor:
        return torch.tensor(head.decode(model, image_tokens, cached=cached).ids)

    return Pair(lambda: write(True), lambda: write(False), tolerance=0)


def cases() -> list[Case]:
    """The comparisons of this file, with the bars the project set itself."""
    return [
        Case('caption_micro_20_tokens', 1.5, lambda: _writing(_micro, 64, 20), rounds=15),
        Case('caption_micro_200_tokens', 4.0, lambda: _writing(_micro, 64, 200), rounds=5),
        Case('caption_base_20_tokens', 1.5, lambda: _writing(_base, 224, 20), rounds=5),
        Case('caption_base_200_tokens', 4.0, lambda: _writing(_base, 224, 200), rounds=1),
    ]


if __name__ == '__main__':
    sys.exit(main(cases()))
