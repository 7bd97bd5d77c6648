"""Formats are known exactly: what resembles one and is another is refused."""

import pytest
import torch

from florence_mm.models.backbones import CoSwin
from florence_mm.models.checkpoints import convert_state_dict, load_checkpoint
from florence_mm.models.checkpoints.formats import find_format


def timm_model(name, **kwargs):
    import timm

    return timm.create_model(name, pretrained=False, **kwargs).state_dict()


def timm_swin_v2():
    return timm_model('swinv2_cr_tiny_224', depths=(1, 1, 1, 1))


def timm_swin_v2_of_microsoft():
    return timm_model('swinv2_tiny_window8_256', depths=(1, 1, 1, 1))


def torchvision_swin_v2():
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

    return SwinTransformer(
        [4, 4], 8, [1, 1], [1, 2], [4, 4], block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2
    ).state_dict()


def transformers_swin_v2():
    from transformers import Swinv2Config, Swinv2Model

    config = Swinv2Config(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4)
    return Swinv2Model(config).state_dict()


def transformers_vit():
    from transformers import ViTConfig, ViTModel

    return ViTModel(
        ViTConfig(image_size=32, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).state_dict()


def mmpretrain_swin_v2():
    from mmpretrain.models import SwinTransformerV2

    arch = {'embed_dims': 8, 'depths': [1] * 4, 'num_heads': [1] * 4, 'extra_norm_every_n_blocks': 0}
    return SwinTransformerV2(arch, img_size=64, window_size=2).state_dict()


def open_clips_coca():
    import open_clip

    vision = {'layers': 1, 'width': 16, 'head_width': 8, 'patch_size': 8, 'image_size': 16}
    text = {'context_length': 12, 'vocab_size': 50, 'width': 16, 'heads': 2, 'layers': 1, 'embed_cls': True}
    return open_clip.CustomTextCLIP(6, vision, {**text, 'output_tokens': True}).state_dict()


def transformers_siglip():
    from transformers import SiglipTextConfig, SiglipTextModel

    sizes = {'hidden_size': 8, 'num_hidden_layers': 1, 'num_attention_heads': 1, 'intermediate_size': 8}
    return SiglipTextModel(SiglipTextConfig(vocab_size=50, max_position_embeddings=9, **sizes)).state_dict()


def glip():
    return {f'rpn.head.dyhead_tower.0.{name}.weight': torch.ones(2, 2) for name in ('offset', 'DyConv.0.conv')}


def masked_image_modelling():
    swin = CoSwin({'embed_dims': 8, 'depths': [1], 'num_heads': [1]}, conv_embed=False).state_dict()
    return {f'encoder.{key}': value for key, value in swin.items()}


def resnet():
    import torchvision

    return torchvision.models.resnet18(weights=None).state_dict()


OTHERS = [
    timm_swin_v2,
    timm_swin_v2_of_microsoft,
    torchvision_swin_v2,
    transformers_swin_v2,
    transformers_vit,
    mmpretrain_swin_v2,
    open_clips_coca,
    transformers_siglip,
    glip,
    masked_image_modelling,
    resnet,
]


@pytest.mark.parametrize('make', OTHERS)
def test_other_formats_are_not_taken_for_ours(make):
    state = make()
    assert find_format(state) is None
    with pytest.raises(ValueError, match='a.pth is in a format that florence_mm does not know: its keys begin with'):
        convert_state_dict(state, 'a.pth')


def test_a_run_of_another_model_is_told_by_its_metadata():
    state = resnet()
    for key, wanted in (('mmengine_version', 'mmengine run'), ('florence_mm_version', 'florence_mm')):
        name, kept, _ = convert_state_dict(state, 'a.pth', {key: '1'})
        assert name == wanted and kept.keys() == state.keys()


def test_two_tensors_of_one_name_are_refused():
    state = CoSwin({'embed_dims': 8, 'depths': [1], 'num_heads': [1]}).state_dict()
    state['backbone.norm.weight'] = state['norm.weight'] + 1
    with pytest.raises(ValueError, match=r'a.pth \(Swin or CoSwin\): it has two tensors for norm.weight'):
        convert_state_dict(state, 'a.pth')


@pytest.mark.parametrize(
    'extra',
    [
        'encoder.layer.0.attention.self.query_global.weight',  # Longformer
        'encoder.layer.0.attention.self_attn_layer_norm.weight',  # XLM-R XL, ESM
        'encoder.layer.0.attention.LayerNorm.weight',  # RoBERTa with norms before
        'encoder.layer.0.output.adapter_modules.en.dense1.weight',  # X-MOD
        'embeddings.task_type_embeddings.weight',  # ERNIE
    ],
)
@pytest.mark.parametrize('prefix', ['', 'roberta.'])
def test_relatives_of_roberta_are_not_taken_for_it(extra, prefix):
    from transformers import RobertaConfig, RobertaModel

    sizes = {'hidden_size': 8, 'num_hidden_layers': 1, 'num_attention_heads': 1, 'intermediate_size': 8}
    state = RobertaModel(RobertaConfig(vocab_size=9, type_vocab_size=1, **sizes)).state_dict()
    state = {prefix + key: value for key, value in state.items()}
    assert convert_state_dict(state)[0] == 'Hugging Face RoBERTa'
    with pytest.raises(ValueError, match=f'its text encoder has {prefix}{extra}, which RoBERTa lacks'):
        convert_state_dict({**state, prefix + extra: torch.ones(8)})


def test_berts_text_encoder_is_no_robertas(tmp_path):
    from transformers import BertConfig, BertModel

    sizes = {'hidden_size': 8, 'num_hidden_layers': 1, 'num_attention_heads': 1, 'intermediate_size': 8}
    state = BertModel(BertConfig(vocab_size=50, **sizes)).state_dict()
    with pytest.raises(ValueError, match=r'a.pth \(Hugging Face RoBERTa\): its text encoder has 2 token types'):
        convert_state_dict(state, 'a.pth')
    state = {f'text_transformer.{key}': value for key, value in state.items()}
    with pytest.raises(ValueError, match=r'a.pth \(METER\): its text encoder has 2 token types'):
        convert_state_dict({**state, 'cross_modal_text_layers.0.x': torch.ones(1)}, 'a.pth')


def test_a_swin_without_a_norm_after_its_patches_is_refused(tmp_path):
    state = CoSwin({'embed_dims': 8, 'depths': [1], 'num_heads': [1]}, conv_embed=False).state_dict()
    state = {key: value for key, value in state.items() if not key.startswith('patch_embed.norm')}
    with pytest.raises(ValueError, match=r'a.pth \(Swin or CoSwin\): it has no norm after the patch embedding'):
        convert_state_dict(state, 'a.pth')


@pytest.mark.parametrize(
    ('kwargs', 'advice'),
    [
        ({'use_abs_pos_embed': True}, 'use_abs_pos_embed=True'),
        ({'layer_scale_init_value': 0.5}, 'layer_scale_init_val'),
    ],
)
def test_parts_that_the_model_lacks_and_that_change_its_features(tmp_path, kwargs, advice):
    arch = {'embed_dims': 8, 'depths': [1], 'num_heads': [1]}
    torch.save(CoSwin(arch, img_size=32, **kwargs).state_dict(), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=f'a.pth .Swin or CoSwin. has .*, which CoSwin lacks, so .* set {advice}'):
        load_checkpoint(CoSwin(arch, img_size=32), tmp_path / 'a.pth')
    load_checkpoint(CoSwin(arch, img_size=32, **kwargs), tmp_path / 'a.pth', strict=True)
