"""DaViT against transformers and timm, on their weights and on ours written in their layouts."""

import pytest
import torch
from public_davit import davit, florence_davit, hf_davit, spread, timm_davit
from safetensors.torch import load_file
from torch import nn

from florence_mm.models.backbones import FlorenceDaViT
from florence_mm.models.checkpoints import convert_file, convert_state_dict, load_checkpoint, write_safetensors

SIDES = (64, 96, 100)


def share(model, peer, name):
    state = {key: value for key, value in peer.state_dict().items() if model.out_norm or not key.startswith('head.')}
    found, state, skipped = convert_state_dict(state)
    assert found == name and not skipped
    model.load_state_dict(state)  # strict: not a key less or more
    return model


def assert_equal(ours, peer, *sizes):
    """Maps and, of the first size, gradients of pictures and of a random sum."""
    for number, size in enumerate(sizes):
        x = torch.randn(2, 3, *((size, size) if isinstance(size, int) else size))
        with torch.no_grad():
            mine, theirs = ours(x)[-1], peer(x)
        assert mine.shape == theirs.shape and theirs.std() > 0.1
        assert (mine - theirs).abs().max() <= 1e-5, size
        if number:
            continue
        found, weight = [], torch.randn_like(theirs)
        for call in (lambda leaf: ours(leaf)[-1], peer):
            leaf = x.clone().requires_grad_()
            (call(leaf) * weight).sum().backward()
            found.append(leaf.grad)
        assert (found[0] - found[1]).abs().max() <= 1e-5 * found[1].abs().max()


def test_transformers():
    peer = hf_davit()
    ours = share(davit(), peer, 'Hugging Face DaViT')
    assert_equal(ours, lambda x: peer(x).last_hidden_state, *SIDES, (131, 77), (32, 224))


def test_timm_of_florence():
    peer = timm_davit(florence=True)
    ours = share(davit(), peer, 'timm DaViT')
    assert_equal(ours, peer.forward_features, *SIDES, (131, 77))


def test_timm_of_imagenet():
    """Patches that do not overlap, the scale and the roles of DaViT's first code, and the norm of pooled features."""
    peer = timm_davit(classes=3)
    peer.head.fc = nn.Identity()
    ours = share(davit(first=True), peer, 'timm DaViT')
    assert_equal(ours, peer, *SIDES, (131, 77))
    ours, peer = davit(first=True, out_norm=None), timm_davit()
    share(ours, peer, 'timm DaViT')
    assert_equal(ours, peer.forward_features, *SIDES)


def test_all_stages_of_florences_base():
    """Sizes of the release, of whose 90.4 M parameters not one is another."""
    import timm

    peer = spread(timm.create_model('davit_base_fl', num_classes=0))
    ours = share(FlorenceDaViT('base', out_indices=(0, 1, 2, 3)).eval(), peer, 'timm DaViT')
    assert sum(parameter.numel() for parameter in ours.parameters()) == 90_368_000
    for side in SIDES:
        x = torch.randn(1, 3, side, side)
        with torch.no_grad():
            maps, theirs = ours(x), peer.forward_intermediates(x, intermediates_only=True)
        assert [m.shape for m in maps] == [m.shape for m in theirs]
        # weights of std 0.1 make values of thousands of 1024 channels, so the bound is that of their size
        assert all((a - b).abs().max() <= 1e-5 * max(1, b.abs().max()) for a, b in zip(maps, theirs, strict=True))


def test_gradients_of_all_weights():
    peer = hf_davit()
    ours = share(davit(), peer, 'Hugging Face DaViT').train()
    x = torch.randn(2, 3, 64, 96)
    for model, call in ((ours, lambda: ours(x)[0]), (peer, lambda: peer(x).last_hidden_state)):
        model.zero_grad()
        call().square().mean().backward()
    theirs = convert_state_dict({key: value.grad for key, value in peer.named_parameters()})[1]
    mine = {key: value.grad for key, value in ours.named_parameters()}
    assert mine.keys() == theirs.keys()
    for key, grad in mine.items():
        assert (grad - theirs[key]).abs().max() <= 1e-5 * max(1, theirs[key].abs().max()), key


# --- files ------------------------------------------------------------------------------------------------------------


def write(model, folder, to, name='out.pth', **kwargs):
    write_safetensors(folder / 'ours.safetensors', model.state_dict())
    return convert_file(folder / 'ours.safetensors', folder / name, to, **kwargs)


def test_our_weights_in_transformers(tmp_path):
    from transformers.models.florence2.modeling_florence2 import Florence2VisionBackbone

    ours, heads = davit(), {'num_heads': [1, 2, 4], 'num_groups': [1, 2, 4]}
    write(ours, tmp_path, 'Hugging Face DaViT', 'folder', settings=heads)
    peer = Florence2VisionBackbone.from_pretrained(tmp_path / 'folder').eval()
    assert peer.config.window_size == 12 and tuple(peer.config.depths) == (1, 2, 1)
    assert_equal(ours, lambda x: peer(x).last_hidden_state, 100)
    with pytest.raises(ValueError, match=r'has norm.weight, the norm of its output, which a Florence2VisionBackbone'):
        write(davit(out_norm='map'), tmp_path, 'Hugging Face DaViT', 'folder', settings=heads)


@pytest.mark.parametrize('florence', [True, False])
def test_our_weights_in_timm(tmp_path, florence):
    ours, peer = davit(first=not florence, out_norm=None), timm_davit(florence=florence)
    write(ours, tmp_path, 'timm DaViT')
    found = peer.load_state_dict(torch.load(tmp_path / 'out.pth', weights_only=True), strict=False)
    assert set(found.missing_keys) == {'head.norm.weight', 'head.norm.bias'} and not found.unexpected_keys
    assert_equal(ours, peer.forward_features, 100)


def test_our_weights_in_the_public_layouts_as_timm_reads_them(tmp_path):
    from timm.models.davit import checkpoint_filter_fn

    ours, peer = davit(), timm_davit(florence=True)
    write(ours, tmp_path, 'Florence-2 DaViT', 'out.safetensors')
    state = {f'vision_tower.{key}': value for key, value in load_file(tmp_path / 'out.safetensors').items()}
    assert not peer.load_state_dict(checkpoint_filter_fn(state, peer), strict=False).unexpected_keys
    assert_equal(ours, peer.forward_features, 64)
    ours, peer = davit(first=True), timm_davit(classes=3)
    write(ours, tmp_path, 'DaViT')
    state = torch.load(tmp_path / 'out.pth', weights_only=True)
    found = peer.load_state_dict(checkpoint_filter_fn(state, peer), strict=False)
    assert found.missing_keys == ['head.fc.weight', 'head.fc.bias'] and not found.unexpected_keys
    peer.head.fc = nn.Identity()
    assert_equal(ours, peer, 64)


def test_tower_inside_a_file_of_the_whole_model(tmp_path):
    """The keys of the other parts are listed as left out, with norm and head, which the model lacks."""
    state = {f'vision_tower.{key}': value for key, value in florence_davit().items()}
    torch.save({**state, 'image_projection': torch.ones(2, 2)}, tmp_path / 'whole.bin')
    ours = davit()
    report = load_checkpoint(ours, tmp_path / 'whole.bin')
    assert set(report.loaded) == set(ours.state_dict())
    peer = hf_davit()
    assert_equal(ours, lambda x: peer(x).last_hidden_state, 64)


def test_settings_of_another_variant_are_refused(tmp_path):
    torch.save(timm_davit(classes=3).state_dict(), tmp_path / 'first.pth')
    torch.save(timm_davit(florence=True).state_dict(), tmp_path / 'second.pth')
    with pytest.raises(ValueError, match=r"need channel_scale='channels' and FlorenceDaViT has channel_scale='tokens'"):
        load_checkpoint(davit(first=True, channel_scale='tokens'), tmp_path / 'first.pth')
    with pytest.raises(ValueError, match=r"need out_norm='pooled' or 'none' and FlorenceDaViT has out_norm='map'"):
        load_checkpoint(davit(first=True, out_norm='map'), tmp_path / 'first.pth')
    with pytest.raises(ValueError, match=r'need window_size=7 and FlorenceDaViT has window_size=12'):
        load_checkpoint(davit(first=True, window_size=12), tmp_path / 'first.pth')
    with pytest.raises(ValueError, match=r'need window_size=12 and FlorenceDaViT has window_size=7'):
        load_checkpoint(davit(window_size=7), tmp_path / 'second.pth')
    # a detector begins with the norm of the last stage
    load_checkpoint(davit(first=True, out_norm='map', out_indices=(1, 2)), tmp_path / 'first.pth')
    # what a layout cannot hold
    with pytest.raises(ValueError, match=r'have a kernel of 2, and Florence-2 DaViT has one of 3'):
        write(davit(first=True), tmp_path, 'Florence-2 DaViT')
    with pytest.raises(ValueError, match=r"channel_scale='tokens', and timm computes with 'channels'.* kernel of 2"):
        write(davit(first=True), tmp_path, 'timm DaViT', settings={'channel_scale': 'tokens'})
