"""UniCL with a video encoder."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.structures import DataSample
from torch import nn

from florence_mm.apis.model_weights import load_whole_model
from florence_mm.language.labels import text_label
from florence_mm.models.algorithms import UniCL
from florence_mm.models.backbones import CoSwin, VideoCoSwin
from florence_mm.models.checkpoints import load_checkpoint
from florence_mm.models.preprocessor import ImageTextDataPreprocessor
from florence_mm.models.text import CLIPTextTower
from florence_mm.models.tokenizers import CLIPTokenizer

ARCH = {'embed_dims': 16, 'depths': [2, 2], 'num_heads': [1, 2], 'patch_size': 4}


class ToyVideoEncoder(nn.Module):
    """One 3-D convolution; a map and not a tuple, as VideoCoSwin gives it."""

    num_features = 6

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 6, (2, 4, 4), (2, 4, 4))

    def forward(self, x):
        return self.conv(x).tanh()


def build(encoder, **kwargs):
    text = CLIPTextTower({'embed_dims': 16, 'num_layers': 1, 'num_heads': 2}, context_length=12, vocab_size=600)
    return UniCL(encoder, text, CLIPTokenizer(context_length=12, vocab_size=600), embed_dims=8, **kwargs)


def image_model():
    """Weights are large enough for attention and its bias tables to matter."""
    torch.manual_seed(0)
    model = build(CoSwin(ARCH, img_size=32, window_size=4)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.5 if name.endswith('bias_table') else 0.2)
    return model


def video_model(seed=1):
    torch.manual_seed(seed)
    return build(VideoCoSwin(ARCH, window_size=[(2, 4, 4), (4, 4, 4)])).eval()


def load_as_pretrained(model, path):
    load_checkpoint(model, path)


def load_as_the_runner_does(model, path):
    load_state_dict(model, torch.load(path, weights_only=True)['state_dict'], strict=False)


@pytest.mark.parametrize('load', [load_as_pretrained, load_as_the_runner_does, load_whole_model])
def test_a_still_clip_has_the_pictures_feature(tmp_path, load):
    pictures, videos = image_model(), video_model()
    torch.save({'state_dict': pictures.state_dict()}, tmp_path / 'image.pth')
    load(videos, tmp_path / 'image.pth')
    images = torch.randn(2, 3, 32, 32)
    still = images[:, :, None].expand(-1, -1, 8, -1, -1)
    with torch.no_grad():
        expected = pictures.extract_image_feat(images)
        torch.testing.assert_close(videos.extract_image_feat(still), expected, atol=1e-4, rtol=0)
        several = still[:, None].expand(-1, 3, -1, -1, -1, -1)
        torch.testing.assert_close(videos.extract_image_feat(several), expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(videos.extract_text_feat(['a dog']), pictures.extract_text_feat(['a dog']))
        moving = videos.extract_image_feat(torch.randn(2, 3, 8, 32, 32))
    assert (moving - expected).abs().max() > 0.01


def test_a_video_checkpoint_is_loaded_as_it_is():
    source, target = video_model(), video_model()
    state = {key: torch.randn_like(value) for key, value in source.state_dict().items()}
    target.load_state_dict(copy.copy(state))
    for key, value in target.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_clips_of_a_video_are_averaged_before_they_are_normalised():
    torch.manual_seed(0)
    model = build(ToyVideoEncoder())
    clips = torch.randn(2, 3, 3, 4, 8, 8)  # two videos of three clips
    clips[:, 0] *= 0.01  # features of different lengths
    mean = torch.stack([model.image_encoder(clip).mean((2, 3, 4)) for clip in clips]).mean(1)
    feature = mean @ model.image_projection
    torch.testing.assert_close(model.extract_image_feat(clips), feature / feature.norm(dim=1, keepdim=True))
    single = torch.stack([model.extract_image_feat(clip) for clip in clips]).mean(1)
    single = single / single.norm(dim=1, keepdim=True)
    assert (model.extract_image_feat(clips) - single).abs().max() > 1e-3
    # one clip of a video is the clip
    torch.testing.assert_close(model.extract_image_feat(clips[:, :1]), model.extract_image_feat(clips[:, 0]))


def batch(clips, texts):
    samples = [DataSample(text=text, label_key=text_label(text)) for text in texts]
    return {'inputs': list(clips), 'data_samples': samples}


def test_gradient_cache_gives_the_same_gradient_for_clips():
    clips = torch.randint(0, 256, (5, 2, 3, 4, 8, 8)).byte()
    gradients = []
    for micro_batch in (None, 2):
        torch.manual_seed(0)
        model = build(ToyVideoEncoder(), micro_batch=micro_batch).double()
        data = model.data_preprocessor(batch(clips, ['a', 'b', 'a', 'c', 'd']), True)
        losses = model(**data, mode='loss')
        (losses['loss_i2t'] + losses['loss_t2i']).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-9, atol=1e-12, msg=name)
    assert gradients[0]['image_encoder.conv.weight'].abs().min() > 0


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_learns_what_only_the_order_of_frames_tells(seed):
    model = video_model(seed).train()
    forwards = torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8)
    for step in range(4):
        forwards[:, :, step, :, 8 * step : 8 * step + 8] = 255
    clips = torch.cat([forwards, forwards.flip(2)])
    texts = ['moving to the right', 'moving to the left']
    data = batch(clips[:, None], texts)
    optimizer = OptimWrapper(torch.optim.AdamW(model.parameters(), 1e-3), clip_grad={'max_norm': 1.0})
    for _ in range(24):
        model.train_step(data, optimizer)
    model.eval().set_classes(texts, ['{}'])
    samples = model.val_step(data)
    assert [int(sample.pred_label) for sample in samples] == [0, 1]
    assert all(sample.pred_score.max() > 0.9 for sample in samples)  # 0.99
    assert samples[0].image_feat.shape == (8,)


@pytest.mark.parametrize('shape', [(3, 4, 2, 2), (2, 3, 4, 2, 2)])
def test_preprocessor_normalises_channels_of_clips(shape):
    clip = torch.zeros(shape, dtype=torch.uint8)
    clip.select(-4, 0).fill_(255)
    out = ImageTextDataPreprocessor()({'inputs': [clip, clip]})['inputs']
    assert out.shape == (2, *shape)
    # (255 - 123.675) / 58.395, (0 - 116.28) / 57.12, (0 - 103.53) / 57.375
    for channel, value in enumerate((2.2489083, -2.0357144, -1.8044444)):
        torch.testing.assert_close(out.select(-4, channel), torch.full(out.select(-4, 0).shape, value))


def test_preprocessor_names_other_shapes():
    preprocessor = ImageTextDataPreprocessor()
    with pytest.raises(ValueError, match=r'shape \(1, 4, 3, 2, 2\); .*for clips \(B, 3, T, H, W\), for several clips'):
        preprocessor({'inputs': [torch.zeros(4, 3, 2, 2)]})
    with pytest.raises(ValueError, match=r'shape \(1, 3, 1, 4, 2, 2\); .*\(B, N, 3, T, H, W\)'):
        preprocessor({'inputs': torch.zeros(1, 3, 1, 4, 2, 2)})
