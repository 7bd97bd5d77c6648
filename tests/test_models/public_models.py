"""Random weights in every public layout, made by the packages themselves, with values at which order shows."""

import re

import public_blip2
import public_davit
import public_florence2
import public_open_flamingo
import public_perceiver
import public_vilt
import torch
from public_blip import hugging_face as their_blip
from public_blip import salesforce
from public_detectors import in_detectron2_layout, mmdet_detector, our_detector, peer_with_biases, scattered
from public_git import in_public_layout, their_git
from public_meter import build, lightning, public
from torch import nn

from florence_mm.models.algorithms import UniCL
from florence_mm.models.backbones import CoSwin, VideoCoSwin
from florence_mm.models.text import CLIPTextTower

ARCH = {'embed_dims': 16, 'depths': [2, 2, 2], 'num_heads': [1, 2, 4]}
TEXT = {'embed_dims': 64, 'num_layers': 2, 'num_heads': 1}
VOCAB, CONTEXT, SHARED = 50, 12, 6


def randomise(model, seed=0):
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or name.endswith('bias_table'):
            nn.init.normal_(parameter, 0.5 if 'norm' in name or 'ln_' in name else 0.0, 0.5)
        else:
            nn.init.normal_(parameter, std=0.15)
    model.eval()  # some packages' returns None
    return model


# --- ours -----------------------------------------------------------------------------------------------------------


def swin(**kwargs):
    kwargs = {'conv_embed': False, 'img_size': 64, 'window_size': 4, **kwargs}
    return randomise(CoSwin(ARCH, **kwargs))


def text_tower(**kwargs):
    return randomise(CLIPTextTower(TEXT, vocab_size=VOCAB, context_length=CONTEXT, **kwargs))


def two_towers(conv_embed=False, **kwargs):
    image, text = swin(conv_embed=conv_embed), text_tower(**kwargs)
    return randomise(UniCL(image, text, tokenizer=lambda texts: None, embed_dims=SHARED), 1)


def recognizer(**kwargs):
    backbone = VideoCoSwin(ARCH, window_size=(2, 4, 4), **{'conv_embed': False, **kwargs})
    head = nn.ModuleDict({'fc_cls': nn.Linear(64, 5)})
    return randomise(nn.ModuleDict({'backbone': backbone, 'cls_head': head}))


# --- others ---------------------------------------------------------------------------------------------------------


def timm_swin():
    from timm.models.swin_transformer import SwinTransformer

    sizes = {'embed_dim': 16, 'depths': (2, 2, 2), 'num_heads': (1, 2, 4)}
    return randomise(SwinTransformer(img_size=64, window_size=4, num_classes=0, **sizes))


def official_swin(state):
    """timm's tensors as Swin's code names them, whose patch merging ends a stage and whose head is a linear layer."""

    def name(key):
        key = re.sub(r'^layers\.(\d)\.downsample', lambda m: f'layers.{int(m[1]) - 1}.downsample', key)
        return key.replace('head.fc.', 'head.')

    return {name(key): value for key, value in state.items()}


def torchvision_swin():
    from torchvision.models.swin_transformer import SwinTransformer

    return randomise(SwinTransformer([4, 4], 16, [2, 2, 2], [1, 2, 4], [4, 4], num_classes=3))


def mmdet_swin():
    from mmdet.models import SwinTransformer

    sizes = {'embed_dims': 16, 'depths': (2, 2, 2), 'num_heads': (1, 2, 4), 'strides': (4, 2, 2)}
    return randomise(SwinTransformer(window_size=4, out_indices=(0, 1, 2), **sizes))


def mmaction_swin():
    from mmaction.models import SwinTransformer3D

    return randomise(SwinTransformer3D(ARCH, pretrained2d=False, window_size=(2, 4, 4), out_indices=(2,)))


def hf_swin(kind='SwinModel', **kwargs):
    import transformers

    sizes = {'embed_dim': 16, 'depths': [2, 2, 2], 'num_heads': [1, 2, 4], 'window_size': 4}
    return randomise(getattr(transformers, kind)(transformers.SwinConfig(image_size=64, **sizes, **kwargs)))


def clip(**kwargs):
    import open_clip

    vision = {'layers': 1, 'width': 16, 'head_width': 8, 'patch_size': 8, 'image_size': 16}
    text = {'context_length': CONTEXT, 'vocab_size': VOCAB, 'width': 64, 'heads': 1, 'layers': 2}
    return randomise(open_clip.model.CLIP(SHARED, vision, text, **kwargs))


def hf_clip_text(**kwargs):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    sizes = {'hidden_size': 64, 'intermediate_size': 256, 'num_hidden_layers': 2, 'num_attention_heads': 1}
    ids = {'vocab_size': VOCAB, 'bos_token_id': VOCAB - 2, 'eos_token_id': VOCAB - 1, 'pad_token_id': 0}
    config = CLIPTextConfig(max_position_embeddings=CONTEXT, projection_dim=SHARED, **sizes, **ids, **kwargs)
    return randomise(CLIPTextModelWithProjection(config))


def roberta():
    from transformers import RobertaConfig, RobertaModel

    sizes = {'hidden_size': 64, 'intermediate_size': 32, 'num_hidden_layers': 2, 'num_attention_heads': 4}
    config = RobertaConfig(vocab_size=60, max_position_embeddings=20, type_vocab_size=1, layer_norm_eps=1e-5, **sizes)
    return randomise(RobertaModel(config, add_pooling_layer=False))


def saved(model, folder):
    """A model of transformers as its own package writes it, under the names of files."""
    from safetensors.torch import load_file

    model.save_pretrained(folder)
    return load_file(folder / 'model.safetensors')


def renamed(state, **names):
    for ours, theirs in names.items():
        state = {theirs + k.removeprefix(ours) if k.startswith(ours) else k: v for k, v in state.items()}
    return state


def detectron2_state():
    state = in_detectron2_layout(scattered(our_detector().backbone, 7), *peer_with_biases())
    return {key: value.detach() for key, value in state.items() if not key.endswith('relative_position_index')}


def video_state(norm):
    backbone = {f'backbone.{key}': value for key, value in mmaction_swin().state_dict().items()}
    head = {'cls_head.fc_cls.weight': torch.randn(5, 64), 'cls_head.fc_cls.bias': torch.randn(5)}
    return {key.replace('backbone.norm2.', f'backbone.{norm}.'): value for key, value in {**backbone, **head}.items()}


def timm_classifier(classes=5):
    from timm.models.swin_transformer import SwinTransformer

    sizes = {'embed_dim': 16, 'depths': (2, 2, 2), 'num_heads': (1, 2, 4)}
    return randomise(SwinTransformer(img_size=64, window_size=4, num_classes=classes, **sizes), 3)


def clip_resnet():
    import open_clip

    vision = {'layers': [1, 1, 1, 1], 'width': 8, 'head_width': 64, 'image_size': 64}
    text = {'context_length': CONTEXT, 'vocab_size': VOCAB, 'width': 64, 'heads': 1, 'layers': 2}
    return randomise(open_clip.model.CLIP(SHARED, vision, text))


#: Other models in a format -> the format, and their state dict as the public package has it.
VARIANTS = {
    'CLIP, a ResNet': ('CLIP', lambda: clip_resnet().state_dict()),
    'Swin, a classifier': ('Swin or CoSwin', lambda: official_swin(timm_classifier().state_dict())),
    'timm DaViT, of Florence-2': ('timm DaViT', lambda: public_davit.timm_davit(florence=True).state_dict()),
    'MedImageInsight, a DaViT': ('MedImageInsight', lambda: public_davit.med_image_insight(two_towers())),
    'open_flamingo, blocks in layers': (
        'open_flamingo',
        lambda: public_open_flamingo.in_layers(public_open_flamingo.trained()),
    ),
    'timm Swin, a classifier': ('timm Swin', lambda: timm_classifier().state_dict()),
}

#: Format -> its state dict as the public package has it; gets an empty folder.
STATES = {
    'Swin or CoSwin': lambda folder: (
        swin().state_dict() | {'head.weight': torch.ones(3, 64), 'head.bias': torch.ones(3)}
    ),
    'timm Swin': lambda folder: timm_swin().state_dict(),
    'torchvision Swin': lambda folder: torchvision_swin().state_dict(),
    'mmdet or mmpretrain Swin': lambda folder: mmdet_swin().state_dict(),
    'Hugging Face Swin': lambda folder: saved(hf_swin(use_absolute_embeddings=True), folder),
    'DaViT': lambda folder: public_davit.first_davit(),
    'Florence-2 DaViT': lambda folder: public_davit.florence_davit(),
    'timm DaViT': lambda folder: public_davit.timm_davit(classes=3).state_dict(),
    'Hugging Face DaViT': lambda folder: saved(public_davit.hf_davit(), folder),
    'Florence-2': lambda folder: public_florence2.public(),
    'Hugging Face Florence-2': lambda folder: saved(public_florence2.hugging_face_without_mark(), folder),
    'open_flamingo': lambda folder: public_open_flamingo.trained(),
    'Video Swin or VideoCoSwin': lambda folder: video_state('norm'),
    'mmaction2 Video Swin': lambda folder: video_state('norm2'),
    'UniCL': lambda folder: two_towers().state_dict(),
    'UniCL, old layout': lambda folder: renamed(
        two_towers().state_dict(), **{'image_encoder.': 'visual.', 'text_encoder.': 'text.', 'image_p': 'vision_p'}
    ),
    'MedImageInsight': lambda folder: renamed(
        two_towers(conv_embed=True).state_dict(),
        **{'text_encoder.': 'lang_encoder.', 'text_projection': 'lang_projection'},
    ),
    'CLIP': lambda folder: clip().state_dict(),
    'Hugging Face CLIP': lambda folder: saved(hf_clip_text(), folder),
    'Hugging Face RoBERTa': lambda folder: saved(roberta(), folder),
    'METER': lambda folder: lightning(public(build().image_encoder))['state_dict'],
    'GIT': lambda folder: in_public_layout(their_git(frames=2)),
    'Hugging Face GIT': lambda folder: saved(their_git(frames=2, tie_word_embeddings=False), folder),
    'BLIP': lambda folder: salesforce(),
    'Hugging Face BLIP': lambda folder: saved(their_blip('ImageTextRetrieval'), folder),
    'Hugging Face Perceiver': lambda folder: saved(public_perceiver.their_classifier('learned'), folder),
    'Hugging Face Perceiver LM': lambda folder: saved(public_perceiver.their_lm(), folder),
    'ViLT': lambda folder: public_vilt.in_public_layout(public_vilt.their_vilt()),
    'Hugging Face ViLT': lambda folder: saved(public_vilt.their_vilt(), folder),
    'UNITER': lambda folder: public_vilt.public_uniter(),
    'BLIP-2': lambda folder: public_blip2.lavis(),
    'BLIP-2 OPT': lambda folder: public_blip2.lavis(stage=2),
    'BLIP-2 T5': lambda folder: public_blip2.lavis(stage=2, kind='t5'),
    'Hugging Face BLIP-2': lambda folder: saved(public_blip2.hugging_face(), folder),
    'DyHead': lambda folder: detectron2_state(),
    'mmdet DyHead': lambda folder: scattered(mmdet_detector()).state_dict(),
    'mmengine run': lambda folder: {'conv1.weight': torch.randn(4, 3, 7, 7), 'bn1.running_mean': torch.randn(4)},
}
