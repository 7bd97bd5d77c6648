"""Our random models, written in a public layout by the command's function, give their outputs in the public package."""

import pytest
import torch
from public_detectors import in_detectron2_layout, mmdet_detector, our_detector, peer_with_biases, picture, scattered
from public_meter import build, clip_of_open_clip, clip_tower, public, worker
from public_models import (
    CONTEXT,
    clip,
    mmaction_swin,
    mmdet_swin,
    randomise,
    recognizer,
    swin,
    text_tower,
    timm_swin,
    torchvision_swin,
    two_towers,
)
from safetensors.torch import load_file
from torch import nn

from florence_mm.models.checkpoints import convert_file, write_safetensors

IDS = torch.tensor([[48, 3, 7, 49, 0, 0, 0, 0, 0, 0, 0, 0], [48, 9, 11, 12, 13, 49, 0, 0, 0, 0, 0, 0]])
CLOSE = {'atol': 1e-9, 'rtol': 1e-9}  # in float64


def write(model, folder, to, name='out.pth', **kwargs):
    """The tensors of a model in a public layout, through files."""
    write_safetensors(folder / 'ours.safetensors', model.state_dict())
    convert_file(folder / 'ours.safetensors', folder / name, to, **kwargs)
    return torch.load(folder / name, weights_only=True) if name.endswith('.pth') else folder / name


def pictures(size=64):
    torch.manual_seed(5)
    return torch.randn(2, 3, size, size, dtype=torch.float64)


def same_maps(ours, theirs, x=None):
    x = pictures() if x is None else x
    with torch.no_grad():
        mine, others = ours.double()(x), theirs(x)
    assert len(mine) == len(others)
    for one, other in zip(mine, others, strict=True):
        assert one.std() > 0.1
        torch.testing.assert_close(one, other, **CLOSE)


def test_swin_by_timm_and_mmdets_readers_of_official_files(tmp_path):
    from mmdet.models.backbones.swin import swin_converter
    from timm.models.swin_transformer import checkpoint_filter_fn

    ours, timm = swin(), timm_swin()
    content = write(ours, tmp_path, 'swin-or-coswin')
    timm.load_state_dict(checkpoint_filter_fn(content, timm), strict=True)
    timm.double()
    same_maps(ours, lambda x: [timm.forward_features(x).permute(0, 3, 1, 2)])
    peer = mmdet_swin()
    state = {key.removeprefix('backbone.'): value for key, value in swin_converter(content['model']).items()}
    keys = peer.load_state_dict(state, strict=False)
    assert set(keys.missing_keys) == {f'norm{i}.{kind}' for i in (0, 1, 2) for kind in ('weight', 'bias')}
    peer.norm2.load_state_dict(ours.norm.state_dict())
    same_maps(ours, lambda x: peer.double()(x)[-1:], pictures(128))  # mmdet shifts on maps of one window, too


def test_timm(tmp_path):
    ours, peer = swin(), timm_swin()
    peer.load_state_dict(write(ours, tmp_path, 'timm Swin'), strict=True)
    same_maps(ours, lambda x: [peer.double().forward_features(x).permute(0, 3, 1, 2)])


def test_torchvision(tmp_path):
    ours, peer = swin(), torchvision_swin()
    keys = peer.load_state_dict(write(ours, tmp_path, 'torchvision_swin'), strict=False)
    assert (keys.missing_keys, keys.unexpected_keys) == (['head.weight', 'head.bias'], [])
    same_maps(ours, lambda x: [peer.double().norm(peer.features(x)).permute(0, 3, 1, 2)])


def test_mmdet_swin(tmp_path):
    ours, peer = swin(out_indices=(0, 1, 2), pad_small_map=True), mmdet_swin()
    content = write(ours, tmp_path, 'mmdet or mmpretrain Swin', settings={'pad_small_map': True})
    peer.load_state_dict(content['state_dict'], strict=True)
    same_maps(ours, peer.double())
    same_maps(ours, peer.double(), torch.randn(1, 3, 45, 90, dtype=torch.float64))


def test_transformers_folder(tmp_path):
    from transformers import AutoModel

    ours = swin(use_abs_pos_embed=True)
    write(ours, tmp_path, 'hugging-face-swin', 'folder')
    peer, found = AutoModel.from_pretrained(tmp_path / 'folder', output_loading_info=True, add_pooling_layer=False)
    assert not found['missing_keys'] and not found['unexpected_keys'] and peer.config.window_size == 4
    same_maps(ours, lambda x: [_map(peer.double()(x).last_hidden_state)])


def _map(tokens):
    side = round(tokens.shape[1] ** 0.5)
    return tokens.unflatten(1, (side, side)).permute(0, 3, 1, 2)


def test_transformers_backbone_folder(tmp_path):
    from transformers import SwinBackbone

    ours = swin(out_indices=(0, 1, 2), pad_small_map=True)
    write(ours, tmp_path, 'Hugging Face Swin', 'folder', settings={'pad_small_map': True})
    peer = SwinBackbone.from_pretrained(tmp_path / 'folder').double()
    same_maps(ours, lambda x: peer(x).feature_maps, pictures(128))


@pytest.mark.parametrize('to', ['UniCL', 'UniCL, old layout'])
def test_unicl(tmp_path, to):
    """Timm's Swin and open_clip's transformer with the names of UniCL's modules."""
    from timm.models.swin_transformer import checkpoint_filter_fn

    ours, image, text = two_towers(), timm_swin(), clip(quick_gelu=True)
    state = write(ours, tmp_path, to)
    state = state['model'] if to == 'UniCL' else state
    names = ('image_encoder.', 'text_encoder.', 'image_projection')
    names = names if to == 'UniCL' else ('visual.', 'text.', 'vision_projection')
    parts = [{k.removeprefix(n): v for k, v in state.items() if k.startswith(n)} for n in names[:2]]
    image.load_state_dict(checkpoint_filter_fn(parts[0], image), strict=True)
    _as_clip(text, parts[1], state['text_projection'])
    with torch.no_grad():
        pooled = image.double().forward_features(pictures()).mean((1, 2))
        mine = ours.double().image_encoder(pictures())[-1].mean((2, 3)) @ ours.image_projection
        torch.testing.assert_close(mine, pooled @ state[names[2]].double(), **CLOSE)
        mine = ours.text_encoder(IDS) @ ours.text_projection
        torch.testing.assert_close(mine, text.double().encode_text(IDS), **CLOSE)
    torch.testing.assert_close(state['logit_scale'], ours.logit_scale.detach().float())


def _as_clip(peer, tower, projection, eps=1e-12):
    """Put a text tower of UniCL's names into open_clip's model."""
    state = {k.replace('resblocks.', 'transformer.resblocks.'): v for k, v in tower.items()}
    keys = peer.load_state_dict({**state, 'text_projection': projection}, strict=False)
    assert not keys.unexpected_keys and all(k.startswith(('visual', 'logit')) for k in keys.missing_keys)
    for module in peer.transformer.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = eps
    peer.ln_final.eps = eps


def test_medimageinsight(tmp_path):
    """Its CoSwin has no other implementation here: names and values are compared, and the text's outputs."""
    ours, text = two_towers(conv_embed=True, causal=False), clip(quick_gelu=True)
    state = write(ours, tmp_path, 'MedImageInsight', settings={'causal': False, 'act': 'quick_gelu'})
    image = {k.removeprefix('image_encoder.'): v for k, v in state.items() if k.startswith('image_encoder.')}
    assert all(torch.equal(image[key], value) for key, value in ours.image_encoder.state_dict().items())
    tower = {k.removeprefix('lang_encoder.'): v for k, v in state.items() if k.startswith('lang_encoder.')}
    _as_clip(text, tower, state['lang_projection'])
    with torch.no_grad():
        full = torch.arange(2, 14)[None] % 49  # of full length, so that nothing is padding
        full[0, -1] = 49
        text.attn_mask = None
        torch.testing.assert_close(
            ours.double().text_encoder(full) @ ours.text_projection, text.double().encode_text(full), **CLOSE
        )


@pytest.mark.parametrize('act', ['gelu', 'quick_gelu'])
def test_clips_text_tower(tmp_path, act):
    ours, peer = two_towers(norm_eps=1e-5, act=act), clip(quick_gelu=act == 'quick_gelu')
    keys = peer.load_state_dict(write(ours, tmp_path, 'clip'), strict=False)
    assert not keys.unexpected_keys and all(key.startswith('visual.') for key in keys.missing_keys)
    with torch.no_grad():
        mine = ours.double().text_encoder(IDS) @ ours.text_projection
        torch.testing.assert_close(mine, peer.double().encode_text(IDS), **CLOSE)


def test_clips_text_tower_for_transformers(tmp_path):
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    ours = two_towers(norm_eps=1e-6, act='gelu')
    settings = {'act': 'gelu', 'norm_eps': 1e-6, 'num_heads': 1}
    write(ours, tmp_path, 'hugging-face-clip', 'folder', settings=settings)
    peer, found = CLIPTextModelWithProjection.from_pretrained(tmp_path / 'folder', output_loading_info=True)
    assert not found['missing_keys'] and not found['unexpected_keys']
    with torch.no_grad():
        mine = ours.double().text_encoder(IDS) @ ours.text_projection
        torch.testing.assert_close(mine, peer.double()(input_ids=IDS).text_embeds, **CLOSE)
    write(text_tower(), tmp_path, 'hugging-face-clip', 'alone', settings=settings)
    assert CLIPTextModel.from_pretrained(tmp_path / 'alone').config.max_position_embeddings == CONTEXT


#: Other tasks, and what METER does not use: RoBERTa's pooler and CLIP's text part.
_NOT_OF_METER = ('nlvr2', 'text_transformer.pooler', 'vit_model.token_', 'vit_model.positional_', 'vit_model.ln_final')


@pytest.mark.parametrize('kind', ['swin', 'clip'])
def test_meter_and_its_roberta(tmp_path, kind):
    from transformers import RobertaModel

    model = build() if kind == 'swin' else build(image=clip_tower(), image_pool='first')
    torch.manual_seed(4)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    peer = public(build().image_encoder if kind == 'swin' else clip_of_open_clip())
    state = write(model, tmp_path, 'METER', settings={'layer_norm_eps of the fusion': 1e-12})['state_dict']
    keys = peer.load_state_dict(state, strict=False)
    assert all(key.startswith(_NOT_OF_METER) for key in keys.missing_keys)
    assert all(key.endswith('relative_position_index') for key in keys.unexpected_keys)
    images = torch.randint(0, 256, (2, 3, 32, 32))
    data = worker['preprocessed'](model, worker['batch'](['a dog', 'how many are'], images))
    tokens = model.tokenize(['a dog', 'how many are'])
    with torch.no_grad():
        answers, match, words = peer(data['inputs'], tokens.input_ids, tokens.mask)
        fused = model(**data)
        torch.testing.assert_close(model.heads['vqa'](fused.pooled), answers, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.heads['itm'](fused.pooled), match, rtol=1e-5, atol=1e-5)
        ours = model.heads['mlm'](fused.text)
        torch.testing.assert_close(ours[tokens.mask], words[tokens.mask], rtol=1e-5, atol=1e-5)

        write(model, tmp_path, 'hugging-face-roberta', 'folder', settings={'num_heads': 2})
        peer, found = RobertaModel.from_pretrained(
            tmp_path / 'folder', add_pooling_layer=False, output_loading_info=True
        )
        assert not found['missing_keys'] and not found['unexpected_keys']
        wanted = peer(tokens.input_ids, tokens.mask.long()).last_hidden_state
        mine = model.text_encoder(tokens.input_ids, tokens.mask)
        torch.testing.assert_close(mine[tokens.mask], wanted[tokens.mask], rtol=1e-5, atol=1e-5)


def test_video_swin_of_mmaction2(tmp_path):
    ours, peer = recognizer(), mmaction_swin()
    state = write(ours, tmp_path, 'mmaction2 Video Swin')['state_dict']
    backbone = {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}
    peer.load_state_dict(backbone, strict=True)
    clips = torch.randn(1, 3, 4, 64, 64, dtype=torch.float64)
    same_maps(lambda_of(ours['backbone']), lambda x: [peer.double()(x)], clips)
    release = write(ours, tmp_path, 'Video Swin or VideoCoSwin')['state_dict']
    assert {key.replace('norm2', 'norm') if 'blocks' not in key else key for key in state} == release.keys()


def lambda_of(backbone):
    class Maps(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = backbone

        def forward(self, x):
            return [self.backbone(x)]

    return Maps()


def test_mmdets_detector(tmp_path):
    ours, peer = scattered(our_detector()), mmdet_detector()
    for block in ours.bbox_head.blocks:
        for part in (block.high, block.mid, block.low):
            nn.init.zeros_(part.bias)
    peer.load_state_dict(write(ours, tmp_path, 'mmdet-dyhead')['state_dict'], strict=True)
    with torch.no_grad():
        got, wanted = (model.double().eval()(picture().double()) for model in (ours, peer))
    torch.testing.assert_close(got, wanted, **CLOSE)


def test_detectron2s_detector(tmp_path):
    ours, (fpn, dyhead, head) = scattered(our_detector(), 5), peer_with_biases()
    backbone = our_detector().backbone
    state = write(ours, tmp_path, 'DyHead')['model']
    theirs = in_detectron2_layout(backbone, fpn, dyhead, head)  # views of their weights
    computed = {key for key in theirs if key.startswith(('pixel_', 'head.anchor_generator'))}
    indices = {key for key in state if key.endswith('relative_position_index')}
    assert state.keys() - indices == {k for k in theirs if not k.endswith('_index')} - computed
    with torch.no_grad():
        for key in state.keys() - indices:
            assert theirs[key].shape == state[key].shape
            theirs[key].copy_(state[key])
        for module in (ours, backbone, fpn, dyhead, head):
            module.double()
        wanted = head(dyhead(fpn(backbone(picture().double()))))
        torch.testing.assert_close(ours(picture().double()), wanted, **CLOSE)


def test_run_of_mmengine(tmp_path):
    from mmengine.runner import load_checkpoint

    ours, other = swin(conv_embed=True), swin(conv_embed=True)
    nn.init.zeros_(other.patch_embed.proj.weight)
    write(ours, tmp_path, 'mmengine run')
    load_checkpoint(other, str(tmp_path / 'out.pth'), strict=True)
    same_maps(ours, other.double())


def test_coswin_keeps_its_names(tmp_path):
    ours = swin(conv_embed=True, layer_scale_init_value=0.5)
    state = load_file(write(ours, tmp_path, 'Swin or CoSwin', 'out.safetensors'))
    assert {key for key in state if not key.endswith('_index')} == ours.state_dict().keys()
    assert torch.equal(state['layers.1.blocks.0.gamma'], ours.layers[1].blocks[0].gamma)


def clip_pair(act):
    from florence_mm.models.algorithms import UniCL
    from florence_mm.models.backbones import CLIPVisionTower

    arch = {'embed_dims': 16, 'num_layers': 1, 'num_heads': 2, 'patch_size': 8}
    image, text = CLIPVisionTower(arch, img_size=16, act=act), text_tower(norm_eps=1e-5, act=act)
    return randomise(UniCL(image, text, tokenizer=lambda texts: None, embed_dims=6), 3)


def same_pair(ours, images, image_features, text_features):
    with torch.no_grad():
        mine = ours.double().image_encoder(images)[-1] @ ours.image_projection
        torch.testing.assert_close(mine, image_features, **CLOSE)
        mine = ours.text_encoder(IDS) @ ours.text_projection
        torch.testing.assert_close(mine, text_features, **CLOSE)


@pytest.mark.parametrize('act', ['gelu', 'quick_gelu'])
def test_both_towers_of_clip(tmp_path, act):
    ours, peer = clip_pair(act), clip(quick_gelu=act == 'quick_gelu')
    peer.load_state_dict(write(ours, tmp_path, 'clip'), strict=True)
    images = pictures(16)
    with torch.no_grad():
        same_pair(ours, images, peer.double().encode_image(images), peer.encode_text(IDS))


@pytest.mark.parametrize('act', ['gelu', 'quick_gelu'])
def test_both_towers_of_clip_for_transformers(tmp_path, act):
    from transformers import AutoModel

    ours, images = clip_pair(act), pictures(16)
    known = {'act': act, 'norm_eps': 1e-5, 'num_heads': 1}
    known |= {f'{name} of the image tower': value for name, value in known.items()} | {
        'num_heads of the image tower': 2
    }
    write(ours, tmp_path, 'hugging-face-clip', 'folder', settings=known)
    peer, found = AutoModel.from_pretrained(tmp_path / 'folder', output_loading_info=True)
    assert not found['missing_keys'] and not found['unexpected_keys'] and type(peer).__name__ == 'CLIPModel'
    peer.double()
    with torch.no_grad():
        image = peer.visual_projection(peer.vision_model(images).pooler_output)
        text = peer.text_projection(peer.text_model(IDS).pooler_output)
        same_pair(ours, images, image, text)


def test_transformers_clip_comes_back_with_its_config(tmp_path):
    from transformers import CLIPConfig, CLIPModel

    text = {'vocab_size': 50, 'hidden_size': 64, 'intermediate_size': 256, 'num_hidden_layers': 1}
    text |= {'num_attention_heads': 4, 'max_position_embeddings': 12, 'hidden_act': 'gelu', 'eos_token_id': 49}
    vision = {'hidden_size': 32, 'intermediate_size': 48, 'num_hidden_layers': 2, 'num_attention_heads': 2}
    vision |= {'image_size': 32, 'patch_size': 8, 'layer_norm_eps': 1e-6, 'hidden_act': 'gelu'}
    peer = randomise(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)))
    peer.save_pretrained(tmp_path / 'theirs')
    convert_file(tmp_path / 'theirs', tmp_path / 'ours.safetensors')
    report = convert_file(tmp_path / 'ours.safetensors', tmp_path / 'back', 'hugging face clip')
    assert (report.left_out, report.absent, report.notes) == ({}, {}, [])
    one, other = (load_file(tmp_path / folder / 'model.safetensors') for folder in ('theirs', 'back'))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    again = CLIPModel.from_pretrained(tmp_path / 'back')
    for part in ('text_config', 'vision_config'):
        before, after = (getattr(model.config, part).to_dict() for model in (peer, again))
        changed = {key for key in before if before[key] != after[key]}
        assert changed <= {'architectures', 'dtype', '_name_or_path', 'projection_dim'}
