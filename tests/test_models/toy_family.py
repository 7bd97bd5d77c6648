"""A family of models over images and texts in as few lines as it takes: nothing else in the package knows of it."""

import torch
from torch import nn

from florence_mm.models.checkpoints import register_format
from florence_mm.models.generation import WriterState
from florence_mm.models.multimodal import VisionLanguageModel
from florence_mm.models.multimodal.protocol import Fused
from florence_mm.registry import MODELS


@MODELS.register_module()
class ToyFamily(VisionLanguageModel):
    """Image tokens are patches of 8 pixels, words are embeddings; a pair is a product of means."""

    def __init__(self, tokenizer, heads=None, hidden_size=16, max_text_len=20, data_preprocessor=None, init_cfg=None):
        super().__init__(tokenizer, hidden_size, max_text_len, data_preprocessor, init_cfg)
        self.patches, self.words = nn.Conv2d(3, hidden_size, 8, 8), nn.Embedding(self.tokenizer.vocab_size, hidden_size)
        self.add_heads(heads)

    def encode_image(self, inputs):
        return self.patches(inputs).flatten(2).transpose(1, 2)  # (U, C, h, w) -> (U, S, C)

    def encode_tokens(self, tokens):
        return self.words(tokens.input_ids)

    def fuse(self, text_tokens, text_mask, image_tokens):
        text, image = text_tokens * text_mask[..., None], image_tokens.mean(1)
        return Fused(text, image_tokens, torch.cat([text.sum(1) * image, image], 1))

    def start_writing(self, image_tokens, image_of, prompts=None, cached=False):
        first_ids = self.first_ids(len(image_of), prompts)
        return WriterState(list(image_of), first_ids, image_tokens.mean(1)[list(image_of)])

    def write_on(self, tokens, state):
        return self.encode_tokens(tokens).cumsum(1) + state.memory[:, None]


@register_format('public toy', lambda keys: 'embedding.weight' in keys)
def convert_public_toy(state):
    """As others have released it: other names, and an optimizer's counter."""
    names = {'embedding.weight': 'words.weight', 'stem.weight': 'patches.weight', 'stem.bias': 'patches.bias'}
    skipped = {key: 'not of the model' for key in state if key not in names and not key.startswith('heads.')}
    return {names.get(key, key): value for key, value in state.items() if key not in skipped}, skipped
