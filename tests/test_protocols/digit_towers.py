"""Two towers that are trained on the embedded training digits for a few seconds, as protocols take them."""

import functools
from types import SimpleNamespace

import torch
from mmengine.config import ConfigDict

from florence_mm.apis.base import InferencePipeline
from florence_mm.corpora.digits import load_digits_split, render_digit
from florence_mm.language.prompts import get_class_names, get_templates
from florence_mm.registry import MODELS

DIGITS = get_class_names('digits')
TEMPLATES = get_templates('simple')
MODEL = {
    'type': 'UniCL',
    'image_encoder': {
        'type': 'CoSwin',
        'arch': {'embed_dims': 32, 'depths': [1, 1], 'num_heads': [1, 2]},
        'img_size': 32,
        'patch_size': 4,
        'window_size': 4,
        'out_indices': (1,),
        'drop_path_rate': 0.0,
    },
    'text_encoder': {
        'type': 'CLIPTextTower',
        'arch': {'embed_dims': 32, 'num_layers': 1, 'num_heads': 1},
        'vocab_size': 1024,
        'context_length': 8,
    },
    'tokenizer': {'type': 'CLIPTokenizer', 'vocab_size': 1024, 'context_length': 8},
    'embed_dims': 32,
}
STEPS, BATCH = 100, 64


def pack(model, pipeline='florence_mm.PackImageText'):
    """A model as protocols take it."""
    cfg = ConfigDict(model=MODEL)
    steps = InferencePipeline(
        {'type': 'florence_mm.ImageTextManifest', 'pipeline': [{'type': 'florence_mm.LoadImage'}, {'type': pipeline}]}
    )
    return SimpleNamespace(model=model.eval(), cfg=cfg, pipeline=steps, device=torch.device('cpu'))


def pixels(split):
    """All digits of a split ``(N, 3, 32, 32)`` with their labels."""
    images, labels = load_digits_split(split)
    drawn = torch.stack([torch.from_numpy(render_digit(image, 32)) for image in images])
    return drawn[:, None].repeat(1, 3, 1, 1), torch.from_numpy(labels)


@functools.cache
def trained(seed):
    """Towers after some steps from a seed."""
    torch.manual_seed(seed)
    model = MODELS.build(MODEL)
    images, labels = pixels('train')
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    from mmpretrain.structures import DataSample

    for _ in range(STEPS):
        chosen = torch.randperm(len(images))[:BATCH]
        samples = [
            DataSample(text=TEMPLATES[int(n)].format(DIGITS[label]), label_key=int(label))
            for label, n in zip(labels[chosen], torch.randint(len(TEMPLATES), (BATCH,)), strict=True)
        ]
        batch = model.data_preprocessor({'inputs': images[chosen], 'data_samples': samples})
        losses = model.train()(**batch, mode='loss')
        optimizer.zero_grad()
        (losses['loss_i2t'] + losses['loss_t2i']).backward()
        optimizer.step()
    return pack(model)
