"""Settings that no shape tells: a model with other settings than its weights need is refused, or asked about."""

import json

import pytest
import torch
from torch import nn

from florence_mm.apis.model_weights import load_whole_model
from florence_mm.engine.checkpointing import read_run_checkpoint
from florence_mm.engine.run_weights import fit_run_weights
from florence_mm.errors import UsageError
from florence_mm.models.backbones.coswin import CoSwin
from florence_mm.models.checkpoints import convert_state_dict, load_checkpoint, read_checkpoint, write_safetensors
from florence_mm.models.heads import DynamicHead
from florence_mm.models.text import CLIPTextTower, RobertaTextEncoder

TEXT = {'embed_dims': 16, 'num_layers': 2, 'num_heads': 2}
IDS = torch.tensor([[48, 3, 7, 49, 0, 0], [48, 9, 11, 12, 13, 49]])


def tower(**kwargs):
    torch.manual_seed(1)
    return CLIPTextTower(TEXT, vocab_size=50, context_length=12, **kwargs).eval()


def open_clip_model(quick_gelu=False):
    import open_clip

    torch.manual_seed(0)
    return open_clip.model.CLIP(
        embed_dim=6,
        vision_cfg={'layers': 1, 'width': 16, 'head_width': 8, 'patch_size': 8, 'image_size': 16},
        text_cfg={'context_length': 12, 'vocab_size': 50, 'width': 16, 'heads': 2, 'layers': 2},
        quick_gelu=quick_gelu,
    ).eval()


@pytest.fixture
def clip_file(tmp_path):
    torch.save(open_clip_model().state_dict(), tmp_path / 'clip.pt')
    return tmp_path / 'clip.pt'


def test_clips_epsilon(clip_file):
    with pytest.raises(ValueError, match='need norm_eps=1e-05 and CLIPTextTower has norm_eps=1e-12') as error:
        load_checkpoint(tower(), clip_file, prefix='text_encoder')
    assert "act: 'quick_gelu' belongs to OpenAI's weights, 'gelu' to most of open_clip's" in str(error.value)
    with pytest.raises(ValueError, match='need norm_eps=1e-05, causal=True and CLIPTextTower has .*, causal=False'):
        load_checkpoint(tower(causal=False), clip_file, prefix='text_encoder')


def test_an_open_activation_is_a_note(clip_file):
    report = load_checkpoint(tower(norm_eps=1e-5), clip_file, prefix='text_encoder')
    assert report.notes == [
        "the file does not tell act, which is 'quick_gelu': 'quick_gelu' belongs to OpenAI's weights, 'gelu' to most "
        "of open_clip's (LAION, DataComp)"
    ]
    assert '\n  note: the file does not tell act' in str(report)


@pytest.mark.parametrize('quick_gelu', [False, True])
def test_open_clips_config_beside_the_file_tells_the_activation(clip_file, quick_gelu):
    peer = open_clip_model(quick_gelu)
    clip_file.with_name('open_clip_config.json').write_text(json.dumps({'model_cfg': {'quick_gelu': quick_gelu}}))
    right, wrong = ('quick_gelu', 'gelu') if quick_gelu else ('gelu', 'quick_gelu')
    with pytest.raises(ValueError, match=f"need act='{right}' and CLIPTextTower has act='{wrong}'"):
        load_checkpoint(tower(norm_eps=1e-5, act=wrong), clip_file, prefix='text_encoder')
    ours, padded = tower(norm_eps=1e-5, act=right), nn.functional.pad(IDS, (0, 6))
    assert load_checkpoint(ours, clip_file, prefix='text_encoder').notes == []
    with torch.no_grad():
        torch.testing.assert_close(ours(IDS) @ peer.text_projection, peer.encode_text(padded), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('act', ['gelu', 'quick_gelu'])
def test_transformers_config_beside_the_file_tells_the_activation(tmp_path, act):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=64,
        projection_dim=6,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        hidden_act=act,
        eos_token_id=49,
    )
    peer = CLIPTextModelWithProjection(config).eval()
    peer.save_pretrained(tmp_path)
    other = {'gelu': 'quick_gelu', 'quick_gelu': 'gelu'}[act]
    with pytest.raises(ValueError, match=rf"\(Hugging Face CLIP\) need act='{act}' and"):
        load_checkpoint(tower(norm_eps=1e-5, act=other), tmp_path / 'model.safetensors', prefix='text_encoder')
    ours = tower(norm_eps=1e-5, act=act)
    load_checkpoint(ours, tmp_path / 'model.safetensors', prefix='text_encoder', strict=True)
    with torch.no_grad():
        wanted = peer(input_ids=IDS).text_embeds
        torch.testing.assert_close(ours(IDS) @ peer.text_projection.weight.T, wanted, atol=1e-5, rtol=1e-5)


def test_openais_own_files_tell_their_activation(tmp_path):
    state = open_clip_model(True).state_dict()
    state |= {name: torch.tensor(1) for name in ('input_resolution', 'context_length', 'vocab_size')}
    torch.save(state, tmp_path / 'a.pt')
    with pytest.raises(ValueError, match="need act='quick_gelu' and"):
        load_checkpoint(tower(norm_eps=1e-5, act='gelu'), tmp_path / 'a.pt', prefix='text_encoder')
    assert load_checkpoint(tower(norm_eps=1e-5), tmp_path / 'a.pt', prefix='text_encoder').notes == []


def test_a_converted_file_keeps_the_settings_of_its_origin(tmp_path, clip_file):
    name, state, _ = convert_state_dict(read_checkpoint(clip_file)[0])
    path = write_safetensors(tmp_path / 'ours.safetensors', state, {'converted_from': name})
    with pytest.raises(ValueError, match=r'ours.safetensors \(CLIP\) need norm_eps=1e-05'):
        load_checkpoint(tower(), path, prefix='text_encoder')
    # in a larger model too
    whole = nn.ModuleDict({'text_encoder': tower()})
    with pytest.raises(ValueError, match=r'has norm_eps=1e-12 \(text_encoder\)'):
        load_checkpoint(whole, path)


def of_an_inferencer(model, path):
    load_whole_model(model, path)


def of_a_test(model, path):
    content = read_run_checkpoint(str(path))
    fit_run_weights(model, content['state_dict'], path, True, content['meta'])


def of_a_new_run(model, path):
    content = read_run_checkpoint(str(path))
    fit_run_weights(model, content['state_dict'], path, False, content['meta'])


@pytest.mark.parametrize('load', [load_checkpoint, of_an_inferencer, of_a_test, of_a_new_run])
def test_a_converted_file_keeps_its_settings_wherever_it_is_loaded(tmp_path, load):
    def towers(**kwargs):
        return nn.ModuleDict({'text_encoder': tower(**kwargs), 'image_encoder': nn.Linear(2, 2)})

    path = tmp_path / 'm.safetensors'
    write_safetensors(path, towers().state_dict(), {'converted_from': 'MedImageInsight'})
    load(towers(causal=False), path)
    with pytest.raises(
        (ValueError, UsageError), match=r'm.safetensors \(MedImageInsight\) need causal=False and .*causal=True'
    ):
        load(towers(), path)


@pytest.mark.parametrize(
    ('text', 'right', 'wrong', 'said'),
    [
        ({'no_causal_mask': True}, {'causal': False}, {}, 'need causal=False'),
        ({'norm_kwargs': {'eps': 1e-6}}, {'norm_eps': 1e-6}, {}, 'need norm_eps=1e-06'),
        ({'pool_type': 'eos', 'vocab_size': 50, 'eos_id': 49}, {}, {'causal': False}, 'need causal=True'),
        ({'pool_type': 'last'}, None, {}, "pool_type 'last' of its text tower"),
        ({'pool_type': 'eos', 'vocab_size': 50, 'eos_id': 2}, None, {}, "pool_type 'eos'"),
        ({'act_kwargs': {'approximate': 'tanh'}}, None, {}, "act_kwargs {'approximate': 'tanh'}"),
    ],
)
def test_open_clips_config_tells_masks_norms_and_pooling(clip_file, text, right, wrong, said):
    clip_file.with_name('open_clip_config.json').write_text(json.dumps({'model_cfg': {'text_cfg': text}}))
    kwargs = {'norm_eps': 1e-5, 'act': 'gelu'}
    if right is not None:
        assert load_checkpoint(tower(**{**kwargs, **right}), clip_file, prefix='text_encoder').notes == []
    with pytest.raises(ValueError, match=said):
        load_checkpoint(tower(**{**kwargs, **wrong}), clip_file, prefix='text_encoder')


def test_the_towers_of_unicl_and_medimageinsight(tmp_path):
    ours = nn.ModuleDict({'text_encoder': tower(), 'image_encoder': nn.Linear(2, 2)}).state_dict()
    medical = {key.replace('text_encoder.', 'lang_encoder.'): value for key, value in ours.items()}
    torch.save(medical, tmp_path / 'm.pth')
    load_checkpoint(tower(causal=False), tmp_path / 'm.pth', prefix='text_encoder', strict=True)
    for kwargs, said in (
        ({}, r'\(MedImageInsight\) need causal=False and CLIPTextTower has causal=True'),
        ({'causal': False, 'norm_eps': 1e-5}, 'need norm_eps=1e-12'),
        ({'causal': False, 'act': 'gelu'}, "need act='quick_gelu'"),
    ):
        with pytest.raises(ValueError, match=said):
            load_checkpoint(tower(**kwargs), tmp_path / 'm.pth', prefix='text_encoder')
    # our own layout is also that of towers with other settings, trained here
    torch.save(ours, tmp_path / 'o.pth')
    load_checkpoint(tower(act='gelu', norm_eps=1e-5), tmp_path / 'o.pth', prefix='text_encoder', strict=True)


def test_robertas_epsilon(tmp_path):
    from transformers import RobertaConfig, RobertaModel

    sizes = {'vocab_size': 50, 'hidden_size': 16, 'num_hidden_layers': 1, 'num_attention_heads': 2}
    sizes |= {'intermediate_size': 16, 'max_position_embeddings': 20}
    peer = RobertaModel(RobertaConfig(type_vocab_size=1, **sizes), add_pooling_layer=False)
    torch.save(peer.state_dict(), tmp_path / 'r.bin')
    with pytest.raises(ValueError, match="need config's layer_norm_eps of the text encoder=1e-05 and"):
        encoder = RobertaTextEncoder(config={**sizes, 'layer_norm_eps': 1e-12})
        load_checkpoint(encoder, tmp_path / 'r.bin', prefix='text_encoder')
    load_checkpoint(RobertaTextEncoder(config=sizes), tmp_path / 'r.bin', prefix='text_encoder', strict=True)


def detector(center_offset=0.5, **kwargs):
    anchors = {'type': 'mmdet.AnchorGenerator', 'ratios': [1.0], 'scales': [8], 'strides': [8, 16]}
    whole = nn.Module()
    generator = {**anchors, 'center_offset': center_offset}
    whole.bbox_head = DynamicHead(3, 16, 16, num_blocks=1, anchor_generator=generator, **kwargs)
    return whole


@pytest.fixture
def dyhead_file(tmp_path):
    """A function that writes mmdet's layout, with a config in its metadata."""

    def write(config=None):
        names = {
            'offset_conv': 'spatial_conv_offset',
            'scale_attn': 'scale_attn_module.1',
            '.high.': '.spatial_conv_high.',
        }
        state = {}
        for key, value in detector().state_dict().items():
            for ours, theirs in names.items():
                key = key.replace(ours, theirs)
            state[key.replace('bbox_head.blocks', 'neck.1.dyhead_blocks')] = value
        meta = {'config': config} if config else {}
        torch.save({'meta': meta, 'state_dict': state}, tmp_path / 'd.pth')
        return tmp_path / 'd.pth'

    return write


def test_offsets_and_anchors_of_dynamic_head(dyhead_file):
    with pytest.raises(ValueError, match=r"\(mmdet DyHead\) need offset_mode='legacy' and Module has .*'resized'"):
        load_checkpoint(detector(), dyhead_file())
    report = load_checkpoint(detector(offset_mode='legacy'), dyhead_file(), allow_missing=True)
    assert report.notes == [
        "the file does not tell center_offset of the anchors, which is 0.5: 0 in mmdet's atss_r50_fpn_dyhead_1x_coco, "
        '0.5 in its others'
    ]


@pytest.mark.parametrize(
    ('config', 'offset'),
    [
        ("neck=dict(type='DyHead')", 0),
        ("dict(type='DyHead')\ncenter_offset=0.5),", 0.5),
        ('DyHead center_offset=0,', 0),
    ],
)
def test_a_config_in_the_file_tells_the_anchors(dyhead_file, config, offset):
    path, other = dyhead_file(config), 0.5 - offset
    right, wrong = (detector(value, offset_mode='legacy') for value in (offset, other))
    assert load_checkpoint(right, path, allow_missing=True).notes == []
    with pytest.raises(ValueError, match=f'need center_offset of the anchors={offset}.* and Module has .*={other}'):
        load_checkpoint(wrong, path, allow_missing=True)


def swin(**kwargs):
    arch = {'embed_dims': 16, 'depths': [2, 2], 'num_heads': [1, 2]}
    return CoSwin(arch, 32, conv_embed=False, window_size=4, out_indices=(0, 1), **kwargs)


@pytest.mark.parametrize('backbone', [True, False])
def test_transformers_swin_tells_whether_small_maps_are_shifted(tmp_path, backbone):
    from transformers import SwinBackbone, SwinConfig, SwinModel

    sizes = {'image_size': 32, 'embed_dim': 16, 'depths': [2, 2], 'num_heads': [1, 2], 'window_size': 4}
    out = {'out_features': ['stage1', 'stage2']} if backbone else {}
    peer = (SwinBackbone if backbone else SwinModel)(SwinConfig(**sizes, **out))
    path = tmp_path / 'swin.pth'
    torch.save(peer.state_dict(), path)
    load_checkpoint(swin(pad_small_map=backbone), path)
    with pytest.raises(ValueError, match=f'need pad_small_map={backbone} and CoSwin has pad_small_map={not backbone}'):
        load_checkpoint(swin(pad_small_map=not backbone), path)


def test_mmdets_detectors_shift_on_small_maps_and_mmpretrains_files_leave_it_open(tmp_path):
    from mmdet.models import SwinTransformer

    sizes = {'strides': (4, 2), 'out_indices': (0, 1), 'window_size': 4}
    state = SwinTransformer(embed_dims=16, depths=(2, 2), num_heads=(1, 2), **sizes).state_dict()
    state = {f'backbone.{key}': value for key, value in state.items()}
    for name, others in (('detector', {'neck.fpn_convs.0.conv.bias': torch.zeros(1)}), ('backbone', {})):
        torch.save({'state_dict': {**state, **others}}, tmp_path / f'{name}.pth')
    with pytest.raises(ValueError, match='need pad_small_map=True and CoSwin has pad_small_map=False'):
        load_checkpoint(swin(), tmp_path / 'detector.pth')
    assert not load_checkpoint(swin(pad_small_map=True), tmp_path / 'detector.pth').notes
    (note,) = load_checkpoint(swin(), tmp_path / 'backbone.pth').notes
    assert 'does not tell pad_small_map, which is False: True in mmdet' in note
