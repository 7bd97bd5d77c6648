"""A METER of a few thousand weights for tests: colours as image tokens, CLIP's tokens or bytes as text."""

from functools import cache

import torch
from torch import nn

from florence_mm.models.multimodal import METER
from florence_mm.models.tokenizers import MaskedCLIPTokenizer

VOCAB = 4096  # the words of the tests are tokens


@cache
def _clip_tokenizer():
    return MaskedCLIPTokenizer(vocab_size=VOCAB)


class Patches(nn.Module):
    """Image tokens: mean colours of patches of 8 pixels, widened. Counts the pictures it has seen."""

    num_features = 12

    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, self.num_features, 8, 8)
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return (self.proj(x),)


def tiny_meter(heads, roberta=False, seed=0, max_text_len=12, num_layers=2, **kwargs):
    """On the CPU, in evaluation mode, weights large enough that outputs differ."""
    torch.manual_seed(seed)
    if roberta:
        size = {'hidden_size': 16, 'num_hidden_layers': 2, 'num_attention_heads': 2, 'intermediate_size': 32}
        text_encoder = {
            'type': 'RobertaTextEncoder',
            'config': {**size, 'vocab_size': 261, 'max_position_embeddings': 70},
        }
        tokenizer = {'type': 'RobertaTextTokenizer'}
    else:
        tower = {'arch': {'embed_dims': 16, 'num_layers': 1, 'num_heads': 2}, 'vocab_size': VOCAB}
        text_encoder = {'type': 'CLIPTokenEncoder', 'tower': {**tower, 'context_length': 70}}
        tokenizer = _clip_tokenizer()
    fusion = {'hidden_size': 16, 'num_layers': num_layers, 'num_heads': 2, 'drop_rate': 0.0, 'attn_drop_rate': 0.0}
    model = METER(Patches(), text_encoder, tokenizer, fusion, heads, max_text_len, **kwargs)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            scale = 1.0 if 'embedding' in name else 1.5 * parameter[0].numel() ** -0.5
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    return model.eval()


def pictures(count, seed=0, side=(16, 24)):
    """``(count, 3, 16, 24)``: six tokens each."""
    return torch.randn(count, 3, *side, generator=torch.Generator().manual_seed(seed))
