"""Perceivers of transformers with random weights, and ours of the same sizes."""

import torch
from torch import nn

from florence_mm.models.algorithms import PerceiverMaskedLM
from florence_mm.registry import MODELS

SIDE, CLASSES = 24, 7
IMAGES = {'num_latents': 6, 'embed_dims': 32, 'depth': 2, 'num_blocks': 2, 'num_heads': 4}
BYTES = {'num_latents': 5, 'embed_dims': 48, 'depth': 2, 'num_heads': 8, 'cross_heads': 8, 'qk_channels': 16}
BYTES['v_channels'] = 48
KINDS = {'fourier': 'Fourier', 'learned': 'Learned', 'conv': 'ConvProcessing'}


def spread(model, seed=0):
    """All weights drawn anew, with a standard deviation of 0.1, and statistics of batches."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    for name, buffer in model.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_(std=0.1, generator=generator)
        if name.endswith('running_var'):
            buffer.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def their_classifier(inputs='fourier', **options):
    import transformers

    sizes = {
        'num_latents': 6,
        'd_latents': 32,
        'num_blocks': 2,
        'num_self_attends_per_block': 2,
        'num_self_attention_heads': 4,
        'num_cross_attention_heads': 1,
        'image_size': SIDE,
        'num_labels': CLASSES,
        'attention_probs_dropout_prob': 0.0,
    }
    config = transformers.PerceiverConfig(**{**sizes, **options})
    return spread(getattr(transformers, f'PerceiverForImageClassification{KINDS[inputs]}')(config))


def our_classifier(inputs='fourier', **arch):
    side = SIDE if inputs == 'learned' else 224
    backbone = {'type': 'florence_mm.Perceiver', 'arch': IMAGES | arch, 'inputs': inputs, 'img_size': side}
    head = {'type': 'mmpretrain.LinearClsHead', 'num_classes': CLASSES, 'in_channels': 32}
    neck = {'type': 'florence_mm.PerceiverDecoder', 'in_channels': 32}
    model = {'type': 'mmpretrain.ImageClassifier', 'backbone': backbone, 'neck': neck, 'head': head}
    return spread(MODELS.build(model), 1)


def their_lm(**options):
    import transformers

    sizes = {
        'num_latents': 5,
        'd_latents': 48,
        'd_model': 32,
        'num_self_attends_per_block': 2,
        'qk_channels': 16,
        'v_channels': 48,
        'max_position_embeddings': 40,
        'attention_probs_dropout_prob': 0.0,
    }
    return spread(transformers.PerceiverForMaskedLM(transformers.PerceiverConfig(**{**sizes, **options})))


def our_lm():
    return spread(PerceiverMaskedLM(encoder=BYTES, token_dims=32, max_text_len=40), 1)
