"""Every public layout into ours and back to the outputs it had; what did not load is listed."""

import hashlib
import runpy
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from safetensors import safe_open
from torch import nn

from florence_mm.models.algorithms import UniCL
from florence_mm.models.backbones import CoSwin
from florence_mm.models.checkpoints import (
    PretrainedInit,
    convert_state_dict,
    load_checkpoint,
    read_checkpoint,
    write_safetensors,
)
from florence_mm.models.text import CLIPTextTower

ARCH = {'embed_dims': 8, 'depths': [2, 2], 'num_heads': [1, 2], 'window_size': 4}
TEXT = {'embed_dims': 16, 'num_layers': 2, 'num_heads': 2}
TOOLS = Path(__file__).parents[2] / 'tools' / 'model_converters'


def backbone(seed=0, **kwargs):
    torch.manual_seed(seed)
    return CoSwin(ARCH, **{'img_size': 32, **kwargs})


def tower(seed=0, **kwargs):
    torch.manual_seed(seed)
    return CLIPTextTower(TEXT, **{'vocab_size': 50, 'context_length': 12, **kwargs})


def two_towers(seed=0):
    torch.manual_seed(seed)
    return UniCL(backbone(seed), tower(seed), tokenizer=lambda texts: None, embed_dims=6)


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def with_buffers(state):
    """What the official code stores beside the weights."""
    return {
        **state,
        'layers.0.blocks.0.attn.relative_position_index': torch.zeros(16, 16, dtype=torch.int64),
        'layers.0.blocks.1.attn_mask': torch.zeros(4, 16, 16),
    }


@pytest.mark.parametrize('conv_embed', [True, False], ids=['CoSwin', 'Swin'])
def test_official_backbone(tmp_path, conv_embed):
    source, target = backbone(conv_embed=conv_embed), backbone(1, conv_embed=conv_embed)
    state = {**with_buffers(source.state_dict()), 'head.weight': torch.zeros(5, 16), 'head.bias': torch.zeros(5)}
    torch.save({'model': state}, tmp_path / 'swin.pth')
    report = load_checkpoint(target, tmp_path / 'swin.pth', strict=True)
    assert same(source, target) and report.format == 'Swin or CoSwin'
    assert len(report.loaded) == len(source.state_dict()) and not report.missing and not report.unexpected
    assert report.skipped['head.weight'] == 'not part of the backbone'
    assert report.skipped['layers.0.blocks.1.attn_mask'] == 'computed by the model'


def test_unicl_release(tmp_path):
    source, target = two_towers(), two_towers(1)
    torch.save({'model': source.state_dict()}, tmp_path / 'unicl.pth')
    assert load_checkpoint(target, tmp_path / 'unicl.pth', strict=True).format == 'UniCL'
    assert same(source, target)
    image = backbone(2)
    report = load_checkpoint(image, tmp_path / 'unicl.pth', prefix='image_encoder.', strict=True)
    assert same(image, source.image_encoder)
    assert report.skipped['logit_scale'] == 'not under image_encoder.'


@pytest.mark.parametrize(
    ('name', 'renames'),
    [
        ('UniCL, old layout', {'image_encoder.': 'visual.', 'text_encoder.': 'text.', 'image_p': 'vision_p'}),
        ('MedImageInsight', {'text_encoder.': 'lang_encoder.', 'text_projection': 'lang_projection'}),
    ],
)
def test_older_two_tower_layouts(tmp_path, name, renames):
    source, target = two_towers(), two_towers(1)
    target.text_encoder.causal = name != 'MedImageInsight'
    state = source.state_dict()
    for ours, theirs in renames.items():
        state = {theirs + k.removeprefix(ours) if k.startswith(ours) else k: v for k, v in state.items()}
    torch.save(state, tmp_path / 'old.pth')
    assert load_checkpoint(target, tmp_path / 'old.pth', strict=True).format == name
    assert same(source, target)


def test_open_clip_text_tower(tmp_path):
    import open_clip

    torch.manual_seed(0)
    peer = open_clip.model.CLIP(
        embed_dim=6,
        vision_cfg={'layers': 1, 'width': 16, 'head_width': 8, 'patch_size': 8, 'image_size': 16},
        text_cfg={'context_length': 12, 'vocab_size': 50, 'width': 16, 'heads': 2, 'layers': 2},
    ).eval()
    torch.save({'epoch': 3, 'state_dict': {f'module.{k}': v for k, v in peer.state_dict().items()}}, tmp_path / 'c.pt')
    ours = tower(act='gelu', norm_eps=1e-5).eval()
    report = load_checkpoint(ours, tmp_path / 'c.pt', prefix='text_encoder', strict=True)
    ids = torch.tensor([[48, 3, 7, 49, 0, 0, 0, 0, 0, 0, 0, 0], [48, 9, 49, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
    _, state, _ = convert_state_dict(peer.state_dict())
    with torch.no_grad():
        ours_feat = ours(ids) @ state['text_projection']
        torch.testing.assert_close(ours_feat, peer.encode_text(ids), atol=1e-5, rtol=1e-4)
    assert report.format == 'CLIP' and report.skipped['image_projection'] == 'not under text_encoder.'


def test_hugging_face_text_tower():
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=64,
        projection_dim=6,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        hidden_act='quick_gelu',
        eos_token_id=49,
        bos_token_id=48,
        pad_token_id=0,
    )
    peer = CLIPTextModelWithProjection(config).eval()
    name, state, _ = convert_state_dict(peer.state_dict())
    ours = tower(norm_eps=1e-5).eval()
    ours.load_state_dict({k.removeprefix('text_encoder.'): v for k, v in state.items() if k.startswith('text_e')})
    ids = torch.tensor([[48, 3, 7, 49, 0, 0], [48, 9, 11, 12, 13, 49]])
    with torch.no_grad():
        wanted = peer(input_ids=ids).text_embeds
        torch.testing.assert_close(ours(ids) @ state['text_projection'], wanted, atol=1e-5, rtol=1e-4)
    assert name == 'Hugging Face CLIP'


def test_our_own_runner_checkpoint_and_safetensors(tmp_path):
    source = two_towers()
    torch.save(
        {'meta': {'epoch': 1}, 'state_dict': source.state_dict(), 'optimizer': {'state': {}}}, tmp_path / 'e.pth'
    )
    write_safetensors(tmp_path / 'e.safetensors', source.state_dict(), {'config': 'x = 1', 'epoch': 1})
    for name in ('e.pth', 'e.safetensors'):
        target = two_towers(1)
        load_checkpoint(target, tmp_path / name, strict=True)
        assert same(source, target)
    assert read_checkpoint(tmp_path / 'e.safetensors')[1] == {'format': 'pt', 'config': 'x = 1', 'epoch': '1'}
    assert not list(tmp_path.glob('*.tmp'))


def test_tables_and_position_embeddings_are_resized_by_the_public_rule(tmp_path):
    source, target = backbone(use_abs_pos_embed=True), backbone(1, img_size=64, window_size=6, use_abs_pos_embed=True)
    torch.save(source.state_dict(), tmp_path / 's.pth')
    report = load_checkpoint(target, tmp_path / 's.pth', strict=True)
    table = 'layers.0.blocks.1.attn.relative_position_bias_table'
    assert report.resized[table] == '(49, 1) to (121, 1)'
    picture = source.state_dict()[table].t().view(1, 1, 7, 7)
    wanted = F.interpolate(picture, size=(11, 11), mode='bicubic').flatten()
    torch.testing.assert_close(target.state_dict()[table][:, 0], wanted)
    picture = source.absolute_pos_embed[0, :, 3].view(1, 1, 8, 8)
    wanted = F.interpolate(picture, size=(16, 16), mode='bicubic').flatten()
    torch.testing.assert_close(target.absolute_pos_embed[0, :, 3], wanted)


def test_shorter_context_takes_the_first_positions(tmp_path):
    source, target = tower(), tower(1, context_length=10)
    torch.save(source.state_dict(), tmp_path / 't.pth')
    report = load_checkpoint(target, tmp_path / 't.pth')
    assert torch.equal(target.positional_embedding, source.positional_embedding[:10])
    assert list(report.resized) == ['positional_embedding']


def test_swin_into_coswin_lists_what_cannot_go(tmp_path):
    source, target = backbone(conv_embed=False), backbone(1)
    stem = target.patch_embed.proj.weight.clone()
    torch.save({'model': source.state_dict()}, tmp_path / 'swin.pth')
    report = load_checkpoint(target, tmp_path / 'swin.pth')
    merge = 'layers.0.downsample'
    assert report.unexpected == [f'{merge}.reduction.weight']
    shapes = '(8, 3, 4, 4) in the file, (8, 3, 7, 7) in the model'
    assert report.skipped['patch_embed.proj.weight'] == f'of another shape ({shapes})'
    assert set(report.missing) == {
        'patch_embed.proj.weight',
        *(f'{merge}.{name}' for name in ('proj.weight', 'proj.bias', 'norm.weight', 'norm.bias')),
    }
    assert torch.equal(target.patch_embed.proj.weight, stem)
    assert torch.equal(target.layers[1].blocks[0].mlp.fc1.weight, source.layers[1].blocks[0].mlp.fc1.weight)
    with pytest.raises(ValueError, match='does not fit CoSwin exactly: patch_embed.proj.weight'):
        load_checkpoint(target, tmp_path / 'swin.pth', strict=True)


def test_prefix_of_a_user_model_is_suggested(tmp_path):
    source = backbone()
    torch.save({'state_dict': {f'backbone.x.{k}': v for k, v in source.state_dict().items()}}, tmp_path / 'c.pth')
    with pytest.raises(ValueError, match=r"nothing in .*c.pth .* matches CoSwin.*did you mean prefix='backbone.x.'\?"):
        load_checkpoint(backbone(1), tmp_path / 'c.pth')
    with pytest.raises(ValueError, match=r"has no keys under 'neck.'; they begin with 'backbone'"):
        load_checkpoint(backbone(1), tmp_path / 'c.pth', prefix='neck')
    target = backbone(1)
    load_checkpoint(target, tmp_path / 'c.pth', prefix='backbone.x')
    assert same(source, target)


@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain', 'mmaction', 'florence_mm'])
def test_init_cfg_under_every_default_scope(tmp_path, scope):
    from mmengine.registry import DefaultScope

    source = two_towers()
    torch.save({'model': source.state_dict()}, tmp_path / 'unicl.pth')
    init_cfg = {'type': 'florence_mm.Pretrained', 'checkpoint': str(tmp_path / 'unicl.pth'), 'prefix': 'image_encoder.'}
    with DefaultScope.overwrite_default_scope(scope):
        target = backbone(1, init_cfg=init_cfg)
        target.init_weights()
    assert same(target, source.image_encoder)


def test_what_a_checkpoint_holds_counts_more_than_the_init_cfg_of_a_part(tmp_path):
    class Part(BaseModule):
        def __init__(self, init_cfg):
            super().__init__(init_cfg)
            self.known, self.new = nn.Linear(2, 2), nn.Linear(2, 2)

    class Whole(BaseModule):
        def __init__(self, init_cfg):
            super().__init__(init_cfg)
            self.part = Part({'type': 'Constant', 'val': 7.0, 'layer': 'Linear'})

    state = {'part.known.weight': torch.tensor([[1.0, 2], [3, 4]]), 'part.known.bias': torch.tensor([5.0, 6])}
    torch.save(state, tmp_path / 'part.pth')
    whole = Whole({'type': 'florence_mm.Pretrained', 'checkpoint': str(tmp_path / 'part.pth')})
    whole.init_weights()
    assert whole.part.known.weight.tolist() == [[1, 2], [3, 4]] and whole.part.known.bias.tolist() == [5, 6]
    # what it lacks is as the part says
    assert (whole.part.new.weight == 7).all()
    # outside of init_weights nothing is drawn anew
    nn.init.ones_(whole.part.new.weight)
    whole.part.is_init = False
    PretrainedInit(str(tmp_path / 'part.pth'))(whole)
    assert (whole.part.new.weight == 1).all()


def run(tool, *args, monkeypatch, capsys):
    """The tool's exit status and what it printed."""
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(TOOLS / tool), run_name='__main__')
    return done.value.code, capsys.readouterr()


def test_tools_convert_and_publish(tmp_path, monkeypatch, capsys):
    def call(tool, *args):
        return run(tool, *args, monkeypatch=monkeypatch, capsys=capsys)

    source = backbone(conv_embed=False)
    torch.save({'model': {**with_buffers(source.state_dict()), 'head.weight': torch.zeros(5, 16)}}, tmp_path / 's.pth')
    code, printed = call('convert_checkpoint.py', tmp_path / 's.pth', tmp_path / 'ours.safetensors')
    assert code == 0 and 'Swin or CoSwin' in printed.out and 'head.weight' in printed.out
    assert read_checkpoint(tmp_path / 'ours.safetensors')[0].keys() == source.state_dict().keys()

    meta = {'cfg': 'model = dict()', 'epoch': 3, 'florence_mm_version': '0'}
    torch.save(
        {'meta': meta, 'state_dict': source.state_dict(), 'optimizer': {'state': {}}, 'message_hub': {}},
        tmp_path / 'epoch_3.pth',
    )
    code, printed = call('publish_model.py', tmp_path / 'epoch_3.pth', tmp_path / 'swin.safetensors')
    assert code == 0
    (published,) = tmp_path.glob('swin-*.safetensors')
    assert published.stem.split('-')[1] == hashlib.sha256(published.read_bytes()).hexdigest()[:8]
    assert str(published) in printed.out
    with safe_open(published, 'pt') as opened:
        header = opened.metadata()
    assert header['config'] == 'model = dict()' and header['epoch'] == '3' and header['florence_mm_version']
    target = backbone(1, conv_embed=False)
    load_checkpoint(target, published, strict=True)
    assert same(source, target)

    code, printed = call('publish_model.py', tmp_path / 'missing.pth', tmp_path / 'x.safetensors')
    assert code == 2 and printed.err.startswith('error: ') and 'missing.pth does not exist' in printed.err
