"""Random DaViTs in every public layout, made by timm and transformers, with weights at which order shows."""

import re

import torch
from torch import nn

from florence_mm.models.backbones import FlorenceDaViT

SIZES = {'depths': (1, 2, 1), 'num_heads': (1, 2, 4)}
ARCH = {'embed_dims': [16, 32, 64], **{key: list(value) for key, value in SIZES.items()}}


def spread(model, seed=0):
    """All weights drawn anew, with a standard deviation of 0.1."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.eval()


def davit(first=False, **kwargs):
    """Ours; ``first``: as DaViT's first code has it."""
    if first:
        kwargs = {'window_size': 4, 'merge_kernel': 2, 'channel_scale': 'channels', 'out_norm': 'pooled', **kwargs}
    return spread(FlorenceDaViT(ARCH, drop_path_rate=0.0, **kwargs), 1)


def hf_davit(**kwargs):
    """transformers: window 12."""
    from transformers import Florence2VisionConfig
    from transformers.models.florence2.modeling_florence2 import Florence2VisionBackbone

    stages = {'patch_size': (7, 3, 3), 'patch_stride': (4, 2, 2), 'patch_padding': (3, 1, 1)}
    stages |= {'embed_dim': (16, 32, 64), 'patch_prenorm': (False, True, True), 'num_groups': (1, 2, 4), **SIZES}
    return spread(Florence2VisionBackbone(Florence2VisionConfig(**stages, drop_path_rate=0.0, **kwargs)))


def timm_davit(florence=False, classes=0):
    """timm's: as in Florence-2, or as in DaViT with window 4."""
    from timm.models.davit import DaVit

    kind = {'window_size': 4}
    if florence:
        kind = {'window_size': 12, 'down_kernel_size': 3, 'channel_attn_v2': True, 'named_blocks': True}
    return spread(DaVit(embed_dims=(16, 32, 64), num_classes=classes, **SIZES, **kind))


def named_as_florence(state):
    """Tensors of the tower of transformers as Florence-2's own code names them."""

    def name(key):
        key = re.sub(r'^convs\.(\d)\.conv', r'convs.\1.proj', key)
        key = re.sub(r'\.conv(\d)\.', r'.conv\1.fn.dw.', key)
        key = re.sub(r'(window|channel)_attn\.', r'\1_attn.fn.', key)
        key = re.sub(r'spatial_block\.norm1', 'spatial_block.window_attn.norm', key)
        key = re.sub(r'channel_block\.norm1', 'channel_block.channel_attn.norm', key)
        return key.replace('.ffn.', '.ffn.fn.net.').replace('norm2', 'ffn.norm')

    return {name(key): value for key, value in state.items()}


def florence_davit():
    """The tower of transformers as Florence-2's own code names it, with the norm and head of a classifier."""
    state = named_as_florence(hf_davit().state_dict())
    return {**state, **numbers('norms', 64), 'head.weight': torch.randn(3, 64), 'head.bias': torch.randn(3)}


def first_davit():
    """timm's classifier as DaViT's first code names it, which is what timm itself reads."""

    def name(key):
        key = re.sub(r'^stem\.', 'stages.0.downsample.', key)
        key = re.sub(r'^stages\.(\d)\.downsample\.', r'patch_embeds.\1.', key).replace('.conv.', '.proj.')
        key = re.sub(r'^stages\.(\d)\.blocks\.', r'main_blocks.\1.', key)
        key = key.replace('cpe1.', 'cpe.0.').replace('cpe2.', 'cpe.1.')
        return key.replace('head.norm.', 'norms.').replace('head.fc.', 'head.')

    return {name(key): value for key, value in timm_davit(classes=3).state_dict().items()}


def med_image_insight(towers):
    """Two towers whose image tower is the DaViT of MedImageInsight, with the text tower of ``towers``."""
    image = {key: value for key, value in florence_davit().items() if not key.startswith('head.')}
    text = {
        key.replace('text_', 'lang_'): value for key, value in towers.state_dict().items() if 'image_enc' not in key
    }
    return {**{f'image_encoder.{key}': value for key, value in image.items()}, **text}


def numbers(name, width):
    return {f'{name}.weight': torch.randn(width), f'{name}.bias': torch.randn(width)}
