"""CLIP's ResNet against open_clip's, alone and in UniCL, and what meets its files in models with another tower."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from florence_mm.models.algorithms import UniCL
from florence_mm.models.backbones import CLIPResNet, CLIPVisionTower
from florence_mm.models.backbones.clip_resnet import ARCHS
from florence_mm.models.checkpoints import convert_state_dict, export_state_dict, load_checkpoint
from florence_mm.models.text import CLIPTextTower

ARCH = {'depths': [1, 2, 1, 1], 'width': 8, 'out_dims': 6}
TEXT = {'embed_dims': 16, 'num_layers': 2, 'num_heads': 2}
IDS = torch.tensor([[48, 3, 7, 49, 0, 0, 0, 0, 0, 0, 0, 0], [48, 9, 11, 12, 13, 5, 4, 3, 2, 7, 8, 49]])


def open_clips(size=64):
    """open_clip's model with weights, and statistics of its norms, at which every part matters."""
    import open_clip

    torch.manual_seed(0)
    vision = {'layers': ARCH['depths'], 'width': ARCH['width'], 'head_width': 64, 'image_size': size}
    text = {'context_length': 12, 'vocab_size': 50, 'width': 16, 'heads': 2, 'layers': 2}
    peer = open_clip.model.CLIP(6, vision, text, quick_gelu=True).double()
    for name, value in (*peer.named_parameters(), *peer.named_buffers()):
        if value.is_floating_point() and value.ndim == 1:
            nn.init.uniform_(value, *((0.5, 1.5) if name.endswith(('weight', 'var')) else (-0.3, 0.3)))
        elif isinstance(value, nn.Parameter) and value.ndim > 1:
            nn.init.normal_(value, std=1.5 * value[0].numel() ** -0.5)
    return peer.eval()


def towers(img_size=64, **kwargs):
    torch.manual_seed(1)
    text = CLIPTextTower(TEXT, 12, 50, norm_eps=1e-5, act='quick_gelu')
    image = CLIPResNet(ARCH, img_size)
    return UniCL(image, text, lambda texts: IDS, embed_dims=6, image_projection=False, **kwargs).double().eval()


def images(height=64, width=64):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def close(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_both_towers_give_open_clips_features(tmp_path):
    peer, ours = open_clips(), towers()
    torch.save(peer.state_dict(), tmp_path / 'RN.pt')
    report = load_checkpoint(ours, tmp_path / 'RN.pt', strict=True)
    assert report.format == 'CLIP' and not report.missing and not report.unexpected
    assert 'image_projection' not in ours.state_dict()
    with torch.no_grad():
        close(ours.image_encoder(images())[0], peer.visual(images()))
        close(ours.extract_image_feat(images()), F.normalize(peer.encode_image(images()), dim=-1))
        close(ours.extract_text_feat(['', '']), F.normalize(peer.encode_text(IDS), dim=-1))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters())


def test_maps_are_those_of_its_stages():
    peer = open_clips()
    ours = CLIPResNet(ARCH, 64, out_type='featmap', out_indices=(3, 0, 2)).double().eval()
    state = {key: value for key, value in peer.visual.state_dict().items() if not key.startswith('attnpool.')}
    ours.load_state_dict(state)
    maps, x = [], peer.visual.stem(images(96, 64))
    with torch.no_grad():
        for layer in (peer.visual.layer1, peer.visual.layer2, peer.visual.layer3, peer.visual.layer4):
            x = layer(x)
            maps.append(x)
        got = ours(images(96, 64))
    assert [tuple(one.shape[1:]) for one in got] == [(32, 24, 16), (128, 6, 4), (256, 3, 2)]
    for mine, theirs in zip(got, (maps[0], maps[2], maps[3]), strict=True):
        close(mine, theirs)
    infos = [ours.feature_info[i] for i in ours.out_indices]
    assert [(info['num_chs'], info['reduction']) for info in infos] == [(32, 4), (128, 16), (256, 32)]
    assert ours.num_features == 256 and CLIPResNet(ARCH, 64).num_features == 6


def test_positions_for_another_size_are_interpolated_alike_in_forward_and_while_loading(tmp_path):
    torch.save(open_clips().state_dict(), tmp_path / 'RN.pt')
    small, large = towers(), towers(img_size=96)
    load_checkpoint(small, tmp_path / 'RN.pt')
    report = load_checkpoint(large, tmp_path / 'RN.pt')
    assert report.resized == {'image_encoder.attnpool.positional_embedding': '(5, 256) to (10, 256)'}
    with torch.no_grad():
        close(small.image_encoder(images(96, 96))[0], large.image_encoder(images(96, 96))[0])
    pool = small.image_encoder.attnpool
    assert not torch.equal(pool.positional_embedding[1], large.image_encoder.attnpool.positional_embedding[1])
    assert torch.equal(pool.positional_embedding[0], large.image_encoder.attnpool.positional_embedding[0])


def test_the_way_back_is_exact():
    state = open_clips().state_dict()
    name, ours, skipped = convert_state_dict(dict(state))
    assert name == 'CLIP' and set(skipped) <= {'attn_mask'}
    exported = export_state_dict(ours, 'CLIP')
    assert exported.left_out == {} and exported.absent == {}
    assert exported.tensors.keys() == state.keys() - {'attn_mask'}
    assert all(torch.equal(value, state[key]) for key, value in exported.tensors.items())


def test_a_file_of_the_other_tower_is_named(tmp_path):
    import open_clip

    torch.save(open_clips().state_dict(), tmp_path / 'RN.pt')
    vision = {'layers': 1, 'width': 16, 'head_width': 8, 'patch_size': 32, 'image_size': 64}
    text = {'context_length': 12, 'vocab_size': 50, 'width': 16, 'heads': 2, 'layers': 2}
    torch.save(open_clip.model.CLIP(6, vision, text).state_dict(), tmp_path / 'ViT.pt')
    vit = CLIPVisionTower({'embed_dims': 16, 'num_layers': 1, 'num_heads': 2, 'patch_size': 32}, 64)
    resnet = CLIPResNet(ARCH, 64)
    for tower, file, says in (
        (vit, 'RN.pt', 'a ResNet, which CLIPVisionTower is not'),
        (resnet, 'ViT.pt', "CLIP's ViT, which CLIPResNet is not"),
    ):
        with pytest.raises(ValueError, match=f'are of an image tower that is {says}'):
            load_checkpoint(tower, tmp_path / file, prefix='image_encoder')
    with pytest.raises(ValueError, match="are of an image tower that is CLIP's ViT, which CLIPResNet is not"):
        load_checkpoint(towers(), tmp_path / 'ViT.pt')
    report = load_checkpoint(towers(), tmp_path / 'ViT.pt', allow_missing=['image_encoder'])
    assert all(key.startswith('image_encoder.') for key in report.missing)


def test_norms_keep_their_statistics_unless_told():
    for kept in (True, False):
        ours = CLIPResNet(ARCH, 64, norm_eval=kept).double().train()
        before = ours.bn1.running_mean.clone()
        pair, alone = ours(images())[0], ours(images()[:1])[0]
        assert torch.equal(ours.bn1.running_mean, before) == kept
        assert torch.allclose(pair[:1], alone, atol=1e-9) == kept


def test_the_published_sizes():
    """Parameters of open_clip's image towers."""
    import open_clip

    for ours, theirs in {'resnet50x4': 'RN50x4', 'resnet50x16': 'RN50x16', 'resnet50x64': 'RN50x64'}.items():
        with torch.device('meta'):
            tower = CLIPResNet(ours)
            peer = open_clip.model.CLIP(**open_clip.get_model_config(theirs)).visual
        shapes = [{key: value.shape for key, value in one.state_dict().items()} for one in (tower, peer)]
        assert shapes[0] == shapes[1]
        assert tower.attnpool.num_heads == peer.attnpool.num_heads
    assert set(ARCHS) == {'resnet50', 'resnet101', 'resnet50x4', 'resnet50x16', 'resnet50x64'}


@pytest.mark.parametrize(
    ('settings', 'says'),
    [
        ({'arch': 'resnet50x5'}, "no ResNet of CLIP named 'resnet50x5'; .* did you mean 'resnet50x4'"),
        ({'arch': {**ARCH, 'depth': 3}}, "unknown key 'depth'.*did you mean 'depths'"),
        ({'arch': {'width': 8}}, 'arch lacks depths, out_dims'),
        ({'arch': {**ARCH, 'depths': [1, 1]}}, 'arch has 2 depths; give the blocks of each of 4 stages'),
        ({'arch': {**ARCH, 'width': 7}}, 'width of arch is 7; give an even number'),
        ({'img_size': 31}, 'img_size is 31, less than the stride of 32 pixels'),
        ({'out_type': 'cls_token'}, "out_type is 'cls_token'; use one of pooled, featmap"),
        ({'out_indices': (4,)}, 'stage 4 in out_indices, but stages are 0 to 3'),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(ValueError, match=says):
        CLIPResNet(**{'arch': ARCH, **settings})


def test_inputs_that_cannot_be():
    ours = CLIPResNet(ARCH, 64)
    for shape in ((3, 64, 64), (1, 4, 64, 64), (1, 3, 31, 64)):
        with pytest.raises(ValueError, match=r'CLIPResNet got an input of shape .* it takes \(B, 3, H, W\)'):
            ours(torch.zeros(shape))
    with pytest.raises(ValueError, match='embed_dims is 7 and image_projection=False, but the image encoder gives 6'):
        text = CLIPTextTower(TEXT, 12, 50)
        UniCL(ours, text, lambda texts: IDS, embed_dims=7, image_projection=False)
