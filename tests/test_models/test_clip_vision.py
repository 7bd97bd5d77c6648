"""CLIP's image tower against open_clip's and transformers', alone and in UniCL, from every layout of its weights."""

import json

import pytest
import torch
from torch import nn

from florence_mm.models.algorithms import UniCL
from florence_mm.models.backbones import CLIPVisionTower, CoSwin
from florence_mm.models.backbones.clip_vision import ARCHS
from florence_mm.models.checkpoints import convert_state_dict, load_checkpoint
from florence_mm.models.checkpoints.exporting import export_state_dict
from florence_mm.models.text import CLIPTextTower

IMAGE = {'embed_dims': 32, 'num_layers': 2, 'num_heads': 4, 'patch_size': 32}
TEXT = {'embed_dims': 16, 'num_layers': 2, 'num_heads': 2}
IDS = torch.tensor([[48, 3, 7, 49, 0, 0, 0, 0, 0, 0, 0, 0], [48, 9, 11, 12, 13, 5, 4, 3, 2, 7, 8, 49]])


def towers(image=None, text=None, **kwargs):
    torch.manual_seed(1)
    image_encoder = CLIPVisionTower(IMAGE, **{'act': 'quick_gelu', **(image or {})})
    text_encoder = CLIPTextTower(TEXT, 12, 50, norm_eps=1e-5, **(text or {}))
    return UniCL(image_encoder, text_encoder, lambda texts: IDS, embed_dims=6, **kwargs).eval()


def spread(model):
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.ndim:
            size = parameter[0].numel() if parameter.ndim > 1 else 25
            parameter.data = torch.randn(parameter.shape, generator=generator) * size**-0.5
    return model.eval()


def open_clips(quick_gelu=True, size=224, custom=False, **vision):
    import open_clip

    kind = open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP
    return spread(
        kind(
            embed_dim=6,
            vision_cfg={'layers': 2, 'width': 32, 'head_width': 8, 'patch_size': 32, 'image_size': size, **vision},
            text_cfg={'context_length': 12, 'vocab_size': 50, 'width': 16, 'heads': 2, 'layers': 2},
            quick_gelu=quick_gelu,
        )
    )


def transformers_clip(act='quick_gelu', layers=2):
    from transformers import CLIPConfig, CLIPModel

    sizes = {'num_hidden_layers': layers, 'hidden_act': act}
    text = {'vocab_size': 50, 'hidden_size': 16, 'intermediate_size': 64, 'num_attention_heads': 2}
    text |= {'max_position_embeddings': 12, 'eos_token_id': 49, 'bos_token_id': 48, **sizes}
    vision = {'hidden_size': 32, 'intermediate_size': 128, 'num_attention_heads': 4, 'patch_size': 32, **sizes}
    return spread(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)))


def normalised(x):
    return nn.functional.normalize(x, dim=-1)


def images(height=224, width=224):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(3))


def assert_equal_features(ours, image, text, inputs):
    with torch.no_grad():
        torch.testing.assert_close(ours.extract_image_feat(inputs), normalised(image), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.extract_text_feat(['', '']), normalised(text), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('custom', [False, True])
@pytest.mark.parametrize('act', ['quick_gelu', 'gelu'])
@pytest.mark.parametrize('size', [224, 256])
def test_both_towers_equal_open_clips(tmp_path, act, size, custom):
    peer = open_clips(act == 'quick_gelu', size, custom)
    torch.save(peer.state_dict(), tmp_path / 'clip.pt')
    ours = towers({'act': act, 'img_size': size}, {'act': act})
    report = load_checkpoint(ours, tmp_path / 'clip.pt', strict=True)
    assert report.format == 'CLIP' and (report.missing, report.unexpected, report.skipped) == ([], [], {})
    inputs = images(size, size)
    assert_equal_features(ours, peer.encode_image(inputs), peer.encode_text(IDS), inputs)


def test_a_whole_clip_goes_back_to_its_layout_unchanged():
    state = open_clips().state_dict()
    _, converted, _ = convert_state_dict(state)
    exported = export_state_dict(converted, 'CLIP')
    assert exported.left_out == {} and exported.absent == {}
    assert exported.tensors.keys() == state.keys() - {'attn_mask'}
    assert all(torch.equal(value, state[key]) for key, value in exported.tensors.items())


def test_sizes_that_a_file_of_open_clips_was_not_made_for(tmp_path):
    from open_clip.model import resize_pos_embed

    small, large = open_clips(), open_clips(size=320)
    torch.save(small.state_dict(), tmp_path / 'clip.pt')
    state = small.state_dict()
    resize_pos_embed(state, large)
    large.load_state_dict(state)
    inputs = images(320, 320)
    for size in (224, 320):  # interpolated in the forward pass, or while loading
        ours = towers({'antialias': True, 'img_size': size})
        load_checkpoint(ours, tmp_path / 'clip.pt', strict=True)
        assert_equal_features(ours, large.encode_image(inputs), large.encode_text(IDS), inputs)


@pytest.mark.parametrize('act', ['quick_gelu', 'gelu'])
def test_both_towers_equal_transformers(tmp_path, act):
    peer = transformers_clip(act)
    peer.save_pretrained(tmp_path)
    ours = towers({'act': act}, {'act': act})
    report = load_checkpoint(ours, tmp_path / 'model.safetensors', strict=True)
    assert report.format == 'Hugging Face CLIP' and report.notes == []
    with torch.no_grad():
        for height, width in ((224, 224), (256, 320)):
            inputs = images(height, width)
            wanted = peer(input_ids=IDS, pixel_values=inputs, interpolate_pos_encoding=True)
            assert_equal_features(ours, wanted.image_embeds, wanted.text_embeds, inputs)
    wrong = towers({'act': 'gelu' if act == 'quick_gelu' else 'quick_gelu'}, {'act': act})
    with pytest.raises(ValueError, match=f"need act of the image tower='{act}' and UniCL has"):
        load_checkpoint(wrong, tmp_path / 'model.safetensors')


def test_transformers_image_tower_alone(tmp_path):
    from transformers import CLIPVisionModelWithProjection

    peer = spread(CLIPVisionModelWithProjection(transformers_clip().config.vision_config))
    peer.save_pretrained(tmp_path)
    ours = CLIPVisionTower(IMAGE).eval()
    load_checkpoint(ours, tmp_path / 'model.safetensors', prefix='image_encoder', strict=True)
    with torch.no_grad():
        torch.testing.assert_close(ours(images())[0], peer.vision_model(images()).pooler_output, rtol=1e-5, atol=1e-5)


def test_tokens_and_maps_equal_transformers():
    peer = transformers_clip(layers=3)
    _, state, _ = convert_state_dict(peer.state_dict())
    state = {key.removeprefix('image_encoder.'): value for key, value in state.items() if 'image_encoder' in key}
    arch = {**IMAGE, 'num_layers': 3}
    with torch.no_grad():
        hidden = peer.vision_model(images(), output_hidden_states=True).hidden_states
        made = {}
        for out_type in ('raw', 'featmap'):
            ours = CLIPVisionTower(arch, out_type=out_type, out_indices=(0, -1)).eval()
            ours.load_state_dict(state)
            made[out_type] = ours(images())
        last = peer.vision_model.post_layernorm(hidden[3])
    close = {'rtol': 1e-5, 'atol': 1e-5}
    for got, wanted in zip(made['raw'], (hidden[1], last), strict=True):
        torch.testing.assert_close(got, wanted, **close)
    for got, wanted in zip(made['featmap'], (hidden[1], last), strict=True):
        # row by row, from the top
        torch.testing.assert_close(got[:, :, 2, 5], wanted[:, 1 + 2 * 7 + 5], **close)
        assert got.shape == (2, 32, 7, 7)


def openais(model):
    """A model as OpenAI publishes it: of half precision, with its sizes as buffers."""
    for name, value in (('input_resolution', 224), ('context_length', 12), ('vocab_size', 50)):
        vars(model).pop(name, None)
        model.register_buffer(name, torch.tensor(value))
    return model.half()


def test_openais_archive_gives_both_towers_and_nothing_is_run(tmp_path, monkeypatch):
    peer = open_clips()
    expected = [peer.encode_image(images()), peer.encode_text(IDS)]
    halves = openais(open_clips())
    calls = {'encode_image': images().half(), 'encode_text': IDS}
    torch.jit.trace_module(halves, calls, check_trace=False).save(str(tmp_path / 'ViT.pt'))
    monkeypatch.setattr(torch.jit, 'load', lambda *_, **__: pytest.fail('the program was loaded'))
    ours = towers()
    report = load_checkpoint(ours, tmp_path / 'ViT.pt')
    assert report.format == 'CLIP' and report.notes == [] and report.missing == []
    assert set(report.skipped) <= {'input_resolution', 'context_length', 'vocab_size', 'attn_mask'}
    with torch.no_grad():  # weights were rounded to 11 bits
        torch.testing.assert_close(ours.extract_image_feat(images()), normalised(expected[0]), rtol=0, atol=2e-2)
        torch.testing.assert_close(ours.extract_text_feat(['', '']), normalised(expected[1]), rtol=0, atol=2e-2)
    rounded = ours.image_encoder.conv1.weight
    assert torch.equal(rounded, peer.visual.conv1.weight.half().float())
    with pytest.raises(ValueError, match="need act of the image tower='quick_gelu'"):
        load_checkpoint(towers({'act': 'gelu'}), tmp_path / 'ViT.pt')


def resnet():
    return open_clips(layers=[1, 1, 1, 1], width=16)


def timms():
    return open_clips(custom=True, timm_model_name='vit_tiny_patch16_224', timm_pool='token', timm_proj='linear')


@pytest.mark.parametrize(('make', 'kind'), [(resnet, 'a ResNet'), (timms, "a model of timm's")])
def test_other_image_towers_are_refused_and_their_text_tower_loads(tmp_path, make, kind):
    peer = make()
    torch.save(peer.state_dict(), tmp_path / 'clip.pt')
    for prefix, model in ((None, towers()), ('image_encoder', towers().image_encoder)):
        with pytest.raises(ValueError, match=f'tensors in the file are of an image tower that is {kind}, which CLIPV'):
            load_checkpoint(model, tmp_path / 'clip.pt', prefix=prefix)
    text = CLIPTextTower(TEXT, 12, 50, norm_eps=1e-5).eval()
    load_checkpoint(text, tmp_path / 'clip.pt', prefix='text_encoder', strict=True)
    ours = towers()
    before = ours.image_projection.clone()
    report = load_checkpoint(ours, tmp_path / 'clip.pt', allow_missing=['image_encoder'])
    assert torch.equal(ours.image_projection, before)
    assert 'image_projection' in report.missing
    with torch.no_grad():
        wanted = normalised(peer.encode_text(IDS))
        torch.testing.assert_close(ours.extract_text_feat(['', '']), wanted, rtol=1e-5, atol=1e-5)


def test_text_tower_of_clip_beside_another_backbone(tmp_path):
    """The projection of CLIP's image tower, of the same shape here, does not go to CoSwin."""
    torch.save(open_clips().state_dict(), tmp_path / 'clip.pt')
    backbone = CoSwin({'embed_dims': 8, 'depths': [1, 1, 1], 'num_heads': [1, 1, 1]}, 32)
    assert backbone.num_features == IMAGE['embed_dims']
    text = CLIPTextTower(TEXT, 12, 50, norm_eps=1e-5)
    model = UniCL(backbone, text, lambda texts: IDS, embed_dims=6)
    with pytest.raises(ValueError, match='lacks 54 of the 84 tensors of UniCL'):
        load_checkpoint(model, tmp_path / 'clip.pt')
    before = model.image_projection.clone()
    report = load_checkpoint(model, tmp_path / 'clip.pt', allow_missing=['image_encoder'])
    assert torch.equal(model.image_projection, before)
    assert report.skipped['image_projection'].startswith('of the image encoder')
    assert 'text_projection' in report.loaded


def test_another_patch_size_is_refused(tmp_path):
    torch.save(open_clips().state_dict(), tmp_path / 'clip.pt')
    model = UniCL(
        CLIPVisionTower({**IMAGE, 'patch_size': 16}), CLIPTextTower(TEXT, 12, 50, norm_eps=1e-5), list, embed_dims=6
    )
    with pytest.raises(ValueError, match=r'has image_encoder.conv1.weight of another shape \(.*; set arch of'):
        load_checkpoint(model, tmp_path / 'clip.pt')
    with pytest.raises(ValueError, match=r'has conv1.weight of another shape \(.*; set arch of'):
        load_checkpoint(model.image_encoder, tmp_path / 'clip.pt', prefix='image_encoder')


@pytest.mark.parametrize(
    ('vision', 'said'),
    [
        ({'head_width': 16}, 'need embed_dims / num_heads of the image tower=16 and'),
        ({'norm_kwargs': {'eps': 1e-6}}, 'need norm_eps of the image tower=1e-06 and'),
        ({'pool_type': 'avg'}, "pool_type 'avg' of its image tower, which CLIPVisionTower does not have"),
        ({'pos_embed_type': 'sin_cos_2d'}, 'pos_embed_type .* of its image tower'),
    ],
)
def test_open_clips_config_tells_settings_of_the_image_tower(tmp_path, vision, said):
    arch = {**IMAGE, 'embed_dims': 64, 'num_heads': 8}
    model = CLIPVisionTower(arch, act='gelu')
    state = {f'visual.{key}': value for key, value in model.state_dict().items()}
    state = {key.replace('visual.res', 'visual.transformer.res'): value for key, value in state.items()}
    state |= {key: value for key, value in open_clips().state_dict().items() if not key.startswith('visual.')}
    torch.save(state, tmp_path / 'a.pt')
    config = tmp_path / 'open_clip_config.json'
    config.write_text(json.dumps({'model_cfg': {'vision_cfg': {'head_width': 8}, 'text_cfg': {}}}))
    load_checkpoint(model, tmp_path / 'a.pt', prefix='image_encoder', strict=True)
    config.write_text(json.dumps({'model_cfg': {'vision_cfg': {'head_width': 8, **vision}, 'text_cfg': {}}}))
    with pytest.raises(ValueError, match=said):
        load_checkpoint(model, tmp_path / 'a.pt', prefix='image_encoder')


# --- the tower itself -------------------------------------------------------------------------------------------------

#: Millions of parameters with the projection, and width of the projection, as open_clip's model profile lists them.
PUBLIC = {
    'base-32': (87.85, 512),
    'base-16': (86.19, 512),
    'large-14': (303.97, 768),
    'huge-14': (632.08, 1024),
    'giant-14': (1012.65, 1024),
    'gigantic-14': (1844.91, 1280),
}


@pytest.mark.parametrize('arch', PUBLIC)
def test_sizes_of_public_towers(arch):
    millions, projected = PUBLIC[arch]
    with torch.device('meta'):
        tower = CLIPVisionTower(arch)
    count = sum(p.numel() for p in tower.parameters()) + tower.num_features * projected
    assert count / 1e6 == pytest.approx(millions, abs=0.006)


def test_checkpointing_and_in_place_inference_change_nothing():
    x = torch.randn(2, 3, 96, 96)
    torch.manual_seed(1)
    plain = spread(CLIPVisionTower(IMAGE, img_size=96))
    saving = CLIPVisionTower(IMAGE, img_size=96, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    for model in (plain, saving):
        model(x)[0].square().sum().backward()
    for (name, p), q in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)
    many = torch.randn(8, 3, 96, 96)  # more tokens than few
    expected = plain(many)[0]
    with torch.no_grad():
        torch.testing.assert_close(plain(many)[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('stages', 'frozen'), [(-1, ()), (0, ('resblocks.0',)), (1, ('resblocks', 'ln_post'))])
def test_frozen_stages(stages, frozen):
    model = CLIPVisionTower(IMAGE, frozen_stages=stages).train()
    stem = ('conv1', 'class_embedding', 'positional_embedding', 'ln_pre') if stages >= 0 else ()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith((*stem, *frozen)), name
    assert model.resblocks[0].training == (stages < 0) and model.ln_post.training == (stages < 1)


def test_layer_depths_decay_and_feature_info():
    model = CLIPVisionTower(IMAGE)
    depths = {name: model.get_layer_depth(f'b.{name}', 'b.') for name, _ in model.named_parameters()}
    assert {depth for _, depth in depths.values()} == {4}
    assert {depths[n][0] for n in ('conv1.weight', 'class_embedding', 'positional_embedding', 'ln_pre.bias')} == {0}
    assert (depths['resblocks.0.ln_1.bias'][0], depths['resblocks.1.mlp.c_fc.weight'][0]) == (1, 2)
    assert depths['ln_post.weight'][0] == 3
    decayed = {name for name, _ in model.named_parameters()} - model.no_weight_decay()
    layers = ('attn.in_proj_weight', 'attn.out_proj.weight', 'mlp.c_fc.weight', 'mlp.c_proj.weight')
    assert decayed == {'conv1.weight', *(f'resblocks.{n}.{layer}' for n in (0, 1) for layer in layers)}
    info = {'num_chs': 32, 'reduction': 32, 'module': 'resblocks.1'}
    assert len(model.feature_info) == 2 and model.feature_info[1] == info


@pytest.mark.parametrize(
    ('kwargs', 'said'),
    [
        ({'arch': 'base-23'}, 'no image tower named .*did you mean'),
        ({'arch': {**IMAGE, 'depth': 3}}, "arch has an unknown key 'depth'"),
        ({'arch': {'embed_dims': 8}}, 'arch lacks num_layers, num_heads, patch_size'),
        ({'arch': {**IMAGE, 'num_heads': 5}}, 'embed_dims of arch is 32, which num_heads=5 must divide'),
        ({'out_type': 'cls'}, "out_type is 'cls'; use one of cls_token, raw, featmap"),
        ({'out_indices': (2,)}, 'block 2 in out_indices or frozen_stages, but blocks are 0 to 1'),
        ({'frozen_stages': 2}, 'block 2 in out_indices'),
        ({'act': 'relu'}, "no activation named 'relu'"),
        ({'img_size': 16}, 'img_size is 16, less than one patch of 32 pixels'),
    ],
)
def test_bad_arguments(kwargs, said):
    with pytest.raises(ValueError, match=said):
        CLIPVisionTower(**{'arch': IMAGE, **kwargs})


def test_bad_inputs():
    with pytest.raises(ValueError, match=r'shape \(2, 3, 31, 64\); it takes \(B, 3, H, W\) with H and W at least 32'):
        CLIPVisionTower(IMAGE)(torch.ones(2, 3, 31, 64))


def test_presets_say_all_that_a_dict_needs():
    for name, arch in ARCHS.items():
        with torch.device('meta'):
            tower = CLIPVisionTower(dict(arch))
        assert tower.patches_resolution == (arch.get('img_size', 224) // arch['patch_size'],) * 2, name
