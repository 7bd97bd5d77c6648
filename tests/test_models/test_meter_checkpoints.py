import re

import pytest
import torch
from public_meter import CLIP, build, clip_of_open_clip, clip_tower, lightning, public, worker
from torch import nn

from florence_mm.models.checkpoints import convert_state_dict, load_checkpoint
from florence_mm.models.checkpoints.bert_layers import join_projections
from florence_mm.models.text import RobertaTextEncoder


@pytest.mark.parametrize('kind', ['swin', 'clip'])
def test_public_weights_give_the_public_outputs(tmp_path, kind):
    clip = kind == 'clip'
    model = build(image=clip_tower(), image_pool='first') if clip else build()
    image = clip_of_open_clip() if clip else build().image_encoder
    if not clip:
        for parameter in image.parameters():
            nn.init.normal_(parameter, std=0.2)
    peer = public(image)
    torch.save(lightning(peer), tmp_path / 'meter.ckpt')
    report = load_checkpoint(model, tmp_path / 'meter.ckpt')
    assert report.format == 'METER'
    assert (report.missing, report.unexpected) == ([], [])
    reasons = {
        reason: sorted(k for k, why in report.skipped.items() if why == reason) for reason in report.skipped.values()
    }
    left_over = reasons.pop("of CLIP's text part, which METER does not use", [])
    assert bool(left_over) == clip and all(re.match(r'vit_model\.(token_|posit|ln_final)', key) for key in left_over)
    assert reasons == {
        'a head of a task that is not here': sorted(k for k in peer.state_dict() if k.startswith('nlvr2')),
        "a metric's state": ['train_vqa_vqa_score.score', 'val_itm_accuracy.correct'],
        'computed by the model': ['text_transformer.embeddings.position_ids'],
        'of the pooler or a head, which METER does not take over': [
            'text_transformer.pooler.dense.bias',
            'text_transformer.pooler.dense.weight',
        ],
    }
    data = worker['preprocessed'](
        model, worker['batch'](['a dog', 'how many are'], torch.randint(0, 256, (2, 3, 32, 32)))
    )
    tokens = model.tokenize(['a dog', 'how many are'])
    with torch.no_grad():
        answers, match, words = peer(data['inputs'], tokens.input_ids, tokens.mask)
        fused = model(**data)
        torch.testing.assert_close(model.heads['vqa'](fused.pooled), answers, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.heads['itm'](fused.pooled), match, rtol=1e-5, atol=1e-5)
        ours = model.heads['mlm'](fused.text)
    torch.testing.assert_close(ours[tokens.mask], words[tokens.mask], rtol=1e-5, atol=1e-5)


def test_an_image_encoder_of_another_kind_is_listed(tmp_path):
    clip = nn.Module()
    clip.visual = nn.Module()
    clip.visual.conv1 = nn.Conv2d(3, 8, 4, 4)
    torch.save(lightning(public(clip)), tmp_path / 'meter.ckpt')
    model = build(conv_embed=True)
    before = model.image_encoder.patch_embed.proj.weight.clone()
    why = 'of an image tower that is a ViT with another patch embedding, which CLIPVisionTower is not'
    match = rf'has none of the 36 tensors of image_encoder of METER.*\(2 tensors in the file are {why}\)'
    with pytest.raises(ValueError, match=match):
        load_checkpoint(model, tmp_path / 'meter.ckpt')
    report = load_checkpoint(model, tmp_path / 'meter.ckpt', allow_missing=['image_encoder'])
    assert report.skipped['vit_model.visual.conv1.weight'] == why
    assert f'{why}: vit_model.visual.conv1' in str(report)
    assert report.missing and all(key.startswith('image_encoder.') for key in report.missing)
    assert torch.equal(model.image_encoder.patch_embed.proj.weight, before)


def test_timms_swin_inside():
    state = {k: v for k, v in public(build().image_encoder).state_dict().items() if 'vit_model' not in k}
    swin = build().image_encoder.state_dict()
    # timm counts a merge to the stage that follows
    state |= {'vit_model.' + k.replace('layers.0.downsample', 'layers.1.downsample'): v for k, v in swin.items()}
    state['vit_model.head.weight'] = torch.zeros(3, 16)
    name, converted, skipped = convert_state_dict(state)
    assert name == 'METER'
    assert {k.removeprefix('image_encoder.') for k in converted if k.startswith('image_encoder.')} == set(swin)
    assert skipped['vit_model.head.weight'] == 'not part of the backbone'


@pytest.mark.parametrize('prefix', ['', 'roberta.'])
def test_robertas_state_dicts(tmp_path, prefix):
    from transformers import RobertaForMaskedLM

    config = worker['roberta_text']()[0]['config']
    encoder = RobertaTextEncoder(config=config).eval()
    torch.manual_seed(9)
    peer = RobertaForMaskedLM(encoder.model.config).eval()
    torch.save((peer if prefix else peer.roberta).state_dict(), tmp_path / 'pytorch_model.bin')
    report = load_checkpoint(encoder, tmp_path / 'pytorch_model.bin', prefix='text_encoder')
    assert report.format == 'Hugging Face RoBERTa'
    assert (report.missing, report.unexpected) == ([], [])
    assert {key.split('.')[0] for key in report.skipped} == ({'lm_head'} if prefix else set())
    ids = torch.randint(5, 261, (2, 7))
    real = torch.ones(2, 7).bool()
    torch.testing.assert_close(encoder(ids, real), peer.roberta(ids).last_hidden_state)
    # the same file for a whole model
    model = build()
    with pytest.raises(ValueError, match=r"more than half.*allow_missing=\['image_encoder',.*'cross_modal', 'heads'\]"):
        load_checkpoint(model, tmp_path / 'pytorch_model.bin')
    report = load_checkpoint(model, tmp_path / 'pytorch_model.bin', allow_missing=True)
    assert all(key.startswith('text_encoder.model.') for key in report.loaded)
    torch.testing.assert_close(model.text_encoder(ids, real), encoder(ids, real))


def test_our_own_checkpoints_are_read_as_they_are(tmp_path):
    model, other = build(), build()
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    torch.save({'state_dict': other.state_dict()}, tmp_path / 'ours.pth')
    report = load_checkpoint(model, tmp_path / 'ours.pth', strict=True)
    assert report.format == 'florence_mm METER'
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


def test_a_layer_with_a_part_missing():
    with pytest.raises(ValueError, match=re.escape('has attention.self.query.weight and not all of query, key, value')):
        join_projections({'attention.self.query.weight': torch.zeros(2, 2)})


@pytest.mark.parametrize(
    ('image', 'pool', 'said'),
    [
        (clip_tower(out_type='featmap'), 'first', "need out_type of the image tower='raw' and METER has .*'featmap'"),
        (clip_tower(act='gelu'), 'first', "need act of the image tower='quick_gelu' and"),
        (clip_tower(), 'mean', "need image_pool of the fusion='first' and METER has .*'mean'"),
        (
            clip_tower(arch={**CLIP, 'patch_size': 16}),
            'first',
            r'has image_encoder.conv1.weight of another shape .*arch',
        ),
    ],
)
def test_settings_of_clip_in_meter(tmp_path, image, pool, said):
    torch.save(lightning(public(clip_of_open_clip())), tmp_path / 'meter.ckpt')
    with pytest.raises(ValueError, match=said):
        load_checkpoint(build(image=image, image_pool=pool), tmp_path / 'meter.ckpt')


def test_a_whole_clip_in_meter_is_cut_to_the_blocks_of_the_model(tmp_path):
    torch.save(lightning(public(clip_of_open_clip(layers=3, size=48))), tmp_path / 'meter.ckpt')
    model = build(image=clip_tower(), image_pool='first')
    report = load_checkpoint(model, tmp_path / 'meter.ckpt')
    assert report.missing == [] and list(report.resized) == ['image_encoder.positional_embedding']
    assert report.unexpected and all(key.startswith('image_encoder.resblocks.2.') for key in report.unexpected)


def test_attention_falls_on_the_patches():
    model = build(image=clip_tower(), image_pool='first')
    weights = model.attend(torch.randn(1, 3, 32, 40), 'a dog').weights
    assert weights.shape[-2:] == (4, 5)
    torch.testing.assert_close(weights.sum((-2, -1)), torch.ones(weights.shape[:-2]))
