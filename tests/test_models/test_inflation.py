"""An image checkpoint in a video model: a still clip gives the image model's features; every key is accounted for."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from florence_mm.models.backbones import CoSwin, VideoCoSwin
from florence_mm.models.backbones.arch import ARCHITECTURES
from florence_mm.models.checkpoints import load_checkpoint
from florence_mm.models.checkpoints.inflation import inflate, inflate_kernel, inflate_table
from florence_mm.ops.position import resize_relative_position_table

SMALL = {'embed_dims': 16, 'depths': [2, 2, 2], 'num_heads': [1, 2, 4], 'window_size': 4}
TABLE = 'layers.{}.blocks.1.attn.relative_position_bias_table'


def randomised(model, std=0.5):
    """On real memory, with values under which a wrong order of anything shows."""
    model.to_empty(device='cpu')
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1 or name.endswith('bias_table'):
                p.normal_(1.0 if 'norm' in name and name.endswith('weight') else 0.0, std, generator=generator)
            else:  # of unit gain, so that nothing dies out or explodes on the way
                p.normal_(0.0, p[0].numel() ** -0.5, generator=generator)
    return model.eval()


def pair(arch=SMALL, image_args=None, **kwargs):
    """An image model and the video model that inherited it."""
    with torch.device('meta'):
        image = CoSwin(arch, **{'conv_embed': kwargs.get('conv_embed', True), **(image_args or {})})
        video = VideoCoSwin(arch, **kwargs)
    image = randomised(image)
    video = video.to_empty(device='cpu').eval()
    state, _ = inflate(video, image.state_dict())
    video.load_state_dict(state)  # strict
    return image, video


def assert_still_clips_look_like_their_frame(image, video, size=(64, 64), frames=8):
    frame = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    clip = frame.unsqueeze(2).expand(-1, -1, frames, -1, -1)
    with torch.no_grad():
        wanted, maps = image(frame)[0], video(clip)
    assert wanted.std() > 0.1
    torch.testing.assert_close(maps, wanted.unsqueeze(2).expand_as(maps), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('name', ARCHITECTURES)
def test_still_clip_for_every_preset(name):
    """Widths, heads, patches and windows of the preset; two blocks a stage (one in the last) where it has more."""
    arch = ARCHITECTURES[name]
    depths = [2] * (len(arch['depths']) - 1) + [1]
    assert_still_clips_look_like_their_frame(*pair({**arch, 'depths': depths}))


@pytest.mark.parametrize(
    'kwargs',
    [
        {'window_size': (8, 4, 4)},
        {'window_size': (1, 4, 4)},
        {'window_size': [(4, 4, 4), (2, 4, 4), (1, 4, 4)]},
        {'window_size': [(2, 4, 4)] * 3, 'merge_temporal_kernel': 3},
        {'merge_temporal_kernel': (2, 1), 'stem_temporal_kernel': 2},
        {'patch_size': (4, 4, 4), 'stem_temporal_kernel': 5},
        {'patch_size': (1, 4, 4)},
        {'conv_embed': False, 'window_size': (4, 4, 4), 'bias_by_slot': False},
        {'conv_embed': False, 'patch_size': (4, 4, 4), 'bias_by_slot': False},
    ],
)
@pytest.mark.parametrize('size', [(64, 64), (50, 77)])
def test_still_clip_for_windows_and_kernels(kwargs, size):
    assert_still_clips_look_like_their_frame(*pair(**kwargs), size=size)


@pytest.mark.parametrize('frames', [1, 2, 7, 13])
def test_still_clip_of_any_length_where_time_is_not_padded(frames):
    assert_still_clips_look_like_their_frame(*pair(window_size=(1, 4, 4)), frames=frames)
    if frames < 8:  # at most 4 steps: one window in time
        assert_still_clips_look_like_their_frame(*pair(window_size=(4, 4, 4)), frames=frames)


@pytest.mark.parametrize('conv_embed', [True, False])
@pytest.mark.parametrize('patch', [1, 2])
def test_stem_keeps_mean_and_variance(conv_embed, patch):
    image, video = pair(conv_embed=conv_embed, patch_size=(patch, 4, 4), bias_by_slot=False)
    generator = torch.Generator().manual_seed(1)
    scene = F.avg_pool2d(torch.randn(2, 3, 94, 94, generator=generator), 15, 1) * 15  # soft, of unit variance
    still = scene[..., :72, :72].unsqueeze(2).expand(-1, -1, 8, -1, -1)
    moving = torch.stack([scene[..., :72, i // 2 : i // 2 + 72] for i in range(8)], 2)  # a pixel in two frames
    with torch.no_grad():
        wanted = image.patch_embed.proj(still[:, :, 0])
        for clip, close in ((still, 1e-4), (moving, 0.1)):
            tokens, size = video.patch_embed(clip)
            assert size[0] == 8 // patch and tokens.isfinite().all()
            got = video.patch_embed.proj(clip)
            variance, mean = torch.var_mean(got, (0, 2, 3, 4), correction=0)
            wanted_variance, wanted_mean = torch.var_mean(wanted, (0, 2, 3), correction=0)
            torch.testing.assert_close(mean, wanted_mean, atol=close, rtol=0)
            torch.testing.assert_close(variance, wanted_variance, atol=1e-4, rtol=2 * close)


def test_kernels_and_tables_by_hand():
    kernel = torch.randn(4, 3, 2, 2)
    inflated = inflate_kernel(kernel, 3)
    assert inflated.shape == (4, 3, 3, 2, 2)
    torch.testing.assert_close(inflated.sum(2), kernel)
    assert torch.equal(inflated[:, :, 0], inflated[:, :, 2])
    table = torch.randn(9, 2)  # window 2 x 2
    longer = inflate_table(table, (3, 2, 2)).view(5, 9, 2)
    assert all(torch.equal(step, table) for step in longer)
    wider = inflate_table(table, (2, 3, 2)).view(3, 5, 3, 2)
    wanted = F.interpolate(table.t().view(1, 2, 3, 3), size=(5, 3), mode='bicubic')[0].permute(1, 2, 0)
    assert all(torch.allclose(step, wanted, atol=1e-6) for step in wider)


def save_image_model(path, prefix='', **kwargs):
    torch.manual_seed(0)
    image = CoSwin(SMALL, **kwargs)
    state = {prefix + key: value for key, value in image.state_dict().items()}
    extra = {'text_encoder.ln_final.weight': torch.zeros(4), 'logit_scale': torch.zeros(())} if prefix else {}
    torch.save({'model': {**state, **extra}}, path)
    return image


def test_config_that_names_an_image_checkpoint_inherits_it(tmp_path):
    """Of a UniCL release, through mmaction2's registry; every key of both sides appears once in the report."""
    from mmaction.registry import MODELS

    image = save_image_model(tmp_path / 'unicl.pth', 'image_encoder.')
    init_cfg = {'type': 'florence_mm.Pretrained', 'checkpoint': str(tmp_path / 'unicl.pth'), 'prefix': 'image_encoder'}
    video = MODELS.build(
        {
            'type': 'florence_mm.VideoCoSwin',
            'arch': SMALL,
            'window_size': [(2, 4, 4), (4, 4, 4), (8, 6, 6)],
            'merge_temporal_kernel': 2,
            'out_indices': (1, 2),
            'init_cfg': init_cfg,
        }
    )
    report = load_checkpoint(video, tmp_path / 'unicl.pth', prefix='image_encoder')
    tables = [TABLE.format(i).replace('1.attn', f'{j}.attn') for i in range(3) for j in range(2)]
    kernels = ['patch_embed.proj.weight', 'layers.0.downsample.proj.weight', 'layers.1.downsample.proj.weight']
    assert set(report.inflated) == {*tables, *kernels}
    assert report.inflated[TABLE.format(2)] == '(49, 4) to (1815, 4)'  # 15 * 11 * 11 rows
    assert set(report.loaded) == image.state_dict().keys() - set(report.inflated)
    assert set(report.missing) == {'norm1.weight', 'norm1.bias'} and not report.unexpected and not report.resized
    assert set(report.skipped) == {'text_encoder.ln_final.weight', 'logit_scale'}
    assert ', 9 inflated' in str(report) and '(16, 3, 7, 7) to (16, 3, 3, 7, 7)' in str(report)

    loaded = {key: value.clone() for key, value in video.state_dict().items()}
    for p in video.parameters():
        nn.init.zeros_(p)
    video.init_weights()
    keys = [key for key in loaded if not key.startswith('norm1')]
    assert all(torch.equal(video.state_dict()[key], loaded[key]) for key in keys)
    torch.testing.assert_close(video.patch_embed.proj.weight.sum(2), image.patch_embed.proj.weight)


def test_swin_into_coswin_clips_inherits_blocks_and_lists_the_rest(tmp_path):
    save_image_model(tmp_path / 'swin.pth', conv_embed=False)
    report = load_checkpoint(VideoCoSwin(SMALL), tmp_path / 'swin.pth')
    shapes = '(16, 3, 4, 4) in the file, (16, 3, 3, 7, 7) in the model'
    assert report.skipped['patch_embed.proj.weight'] == f'of another shape ({shapes})'
    assert len(report.inflated) == 6 and all('bias_table' in key for key in report.inflated)
    assert report.unexpected == [f'layers.{i}.downsample.reduction.weight' for i in (0, 1)]


def test_nothing_that_matches_is_an_error(tmp_path):
    torch.save({'model': {'conv1.weight': torch.zeros(8, 3, 7, 7)}}, tmp_path / 'resnet.pth')
    with pytest.raises(ValueError, match=r'nothing in .*resnet.pth .* matches VideoCoSwin: its keys begin with .conv1'):
        load_checkpoint(VideoCoSwin(SMALL), tmp_path / 'resnet.pth')
    save_image_model(tmp_path / 'unicl.pth', 'image_encoder.')
    with pytest.raises(ValueError, match=r"did you mean prefix='image_encoder.'\?"):
        load_checkpoint(VideoCoSwin(SMALL), tmp_path / 'unicl.pth')
    # a recognizer has its backbone from there, and no classifier
    recognizer = nn.ModuleDict({'backbone': VideoCoSwin(SMALL), 'cls_head': nn.Linear(4, 2)})
    said = r"it holds tensors of backbone alone, which backbone=dict\(init_cfg=.*prefix='image_encoder.'\)\) loads"
    with pytest.raises(ValueError, match=said):
        load_checkpoint(recognizer, tmp_path / 'unicl.pth')


def test_video_checkpoint_is_not_inflated(tmp_path):
    """A table of window (5, 7, 7) has 39 x 39 rows, as one of an image window of 20."""
    torch.manual_seed(0)
    source, target = (VideoCoSwin(SMALL, window_size=(5, 7, 7)) for _ in range(2))
    torch.save(source.state_dict(), tmp_path / 'video.pth')
    report = load_checkpoint(target, tmp_path / 'video.pth', strict=True)
    assert not report.inflated
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


@pytest.mark.parametrize(('norm', 'name'), [('norm2', 'mmaction2 Video Swin'), ('norm', 'Video Swin or VideoCoSwin')])
def test_video_swin_release(tmp_path, norm, name):
    """Backbone and head of a recognizer, with the index that the public code stores; also the backbone alone."""
    torch.manual_seed(0)
    kwargs = {'conv_embed': False, 'window_size': (2, 4, 4)}
    source = VideoCoSwin(SMALL, **kwargs)
    state = {f'backbone.{k.replace("norm.", f"{norm}.") if k.startswith("norm.") else k}': v for k, v in
             source.state_dict().items()}  # fmt: skip
    index = {'backbone.layers.0.blocks.0.attn.relative_position_index': torch.zeros(32, 32, dtype=torch.int64)}
    head = {'cls_head.fc_cls.weight': torch.randn(5, 64), 'cls_head.fc_cls.bias': torch.randn(5)}
    torch.save({'meta': {'epoch': 30}, 'state_dict': {**state, **index, **head}}, tmp_path / 'video.pth')

    torch.manual_seed(1)
    target = VideoCoSwin(SMALL, **kwargs)
    report = load_checkpoint(target, tmp_path / 'video.pth', prefix='backbone', strict=True)
    assert report.format == name and len(report.loaded) == len(source.state_dict())
    assert torch.equal(target.norm.weight, source.norm.weight)
    model = nn.ModuleDict(
        {'backbone': VideoCoSwin(SMALL, **kwargs), 'cls_head': nn.ModuleDict({'fc_cls': nn.Linear(64, 5)})}
    )
    load_checkpoint(model, tmp_path / 'video.pth', strict=True)
    assert torch.equal(model['cls_head']['fc_cls'].weight, head['cls_head.fc_cls.weight'])


@pytest.mark.parametrize('conv_embed', [False, True])
def test_another_window_in_space_and_time(tmp_path, conv_embed):
    """Tables are resized and reported so, the rest is inherited; also where the model loads its own file."""
    torch.manual_seed(0)
    kwargs = {'conv_embed': conv_embed, 'bias_by_slot': False}
    source = VideoCoSwin(SMALL, window_size=(2, 4, 4), **kwargs)
    torch.save(source.state_dict(), tmp_path / 'video.pth')
    for window in ((4, 4, 4), (1, 4, 4), (2, 6, 6), (2, 4, 6)):
        target = VideoCoSwin(SMALL, window_size=window, **kwargs)
        report = load_checkpoint(target, tmp_path / 'video.pth', strict=True)
        tables = [key for key in source.state_dict() if key.endswith('bias_table')]
        assert list(report.resized) == tables and not report.inflated and not report.skipped
        for key in tables:
            before, after = source.state_dict()[key], target.state_dict()[key]
            torch.testing.assert_close(after, resize_relative_position_table(before, window, (2, 4, 4)))
            assert report.resized[key] == f'{tuple(before.shape)} to {tuple(after.shape)}'
        other = VideoCoSwin(SMALL, window_size=window, **kwargs)
        other.load_state_dict(torch.load(tmp_path / 'video.pth', weights_only=True))
        assert all(torch.equal(a, b) for a, b in zip(target.parameters(), other.parameters(), strict=True))


def test_a_still_table_serves_longer_windows_alike(tmp_path):
    """Of a model inherited from an image one the tables do not change over time: a still clip still looks still."""
    image, video = pair(window_size=(2, 4, 4))
    torch.save(video.state_dict(), tmp_path / 'video.pth')
    longer = VideoCoSwin(SMALL, window_size=[(4, 4, 4), (8, 4, 4), (2, 4, 4)]).eval()
    report = load_checkpoint(longer, tmp_path / 'video.pth', strict=True)
    assert len(report.resized) == 4
    assert_still_clips_look_like_their_frame(image, longer, frames=16)


def test_a_window_that_cannot_be_told_is_left_out(tmp_path):
    torch.save(VideoCoSwin(SMALL, window_size=(5, 7, 7)).state_dict(), tmp_path / 'video.pth')
    target = VideoCoSwin(SMALL, window_size=(8, 12, 12))
    report = load_checkpoint(target, tmp_path / 'video.pth')
    assert len(report.skipped) == 6
    assert report.skipped[TABLE.format(0)] == 'of another shape ((1521, 1) in the file, (7935, 1) in the model)'


@pytest.mark.parametrize(
    ('rows', 'inflated'),
    [
        (77, True),  # (4, 6), the window of the model
        (49, True),  # (4, 4), resized
        (55, False),  # (3, 6): neither square nor the model's
        (64, False),  # no window has an even number of offsets along a side
    ],
)
def test_tables_of_image_windows_that_can_be_told(rows, inflated):
    with torch.device('meta'):
        image, video = CoSwin(SMALL), VideoCoSwin(SMALL, window_size=(2, 4, 6))
    state, key = randomised(image).state_dict(), TABLE.format(0)
    heads = state[key].shape[1]
    state[key] = torch.randn(rows, heads)
    made, done = inflate(video, state)
    assert (key in done) == inflated and 'patch_embed.proj.weight' in done
    if not inflated:  # the loader then reports its shape
        assert made[key] is state[key]
        return
    assert made[key].shape == (3 * 77, heads)
    same = state[key] if rows == 77 else resize_relative_position_table(state[key], (4, 6))
    assert all(torch.equal(step, same) for step in made[key].view(3, 77, heads))
