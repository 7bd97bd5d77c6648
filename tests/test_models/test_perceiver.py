"""Perceiver's parts beyond parity: inputs, output queries, masked bytes, and refusals."""

import pytest
import torch
from instances import build
from kinds import numbers
from mmpretrain.structures import DataSample

from florence_mm.models.algorithms import PerceiverMaskedLM
from florence_mm.models.backbones import CoSwin, Perceiver
from florence_mm.models.heads import PlaceQueryHead
from florence_mm.models.layers.latent_encoder import LatentEncoder
from florence_mm.ops.position import fourier_features, grid_places

ARCH = {'num_latents': 4, 'embed_dims': 16, 'depth': 1, 'num_heads': 2}


def test_fourier_features_by_hand():
    places = torch.tensor([[-1.0, 0.5]])
    # frequencies 1 and 2 of the first axis, 1 and 4 of the second
    got = fourier_features(places, 2, (4, 8))
    angles = torch.pi * torch.tensor([-1.0, -2.0, 0.5, 2.0])
    torch.testing.assert_close(got, torch.cat([places[0], angles.sin(), angles.cos()])[None])
    assert fourier_features(torch.zeros(2, 3, 1), 5, (9,)).shape == (2, 3, 11)


def test_places_of_a_grid_go_row_by_row():
    assert grid_places((2, 2)).tolist() == [[-1, -1], [-1, 1], [1, -1], [1, 1]]
    assert grid_places((3,)).tolist() == [[-1], [0], [1]]


# --- the encoder ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_latents_read_a_set_so_order_does_not_matter_and_padding_is_not_read():
    encoder = LatentEncoder(6, 4, 16, 2, num_blocks=2, num_reads=2, num_heads=2, cross_heads=2, init_std=0.5).double()
    tokens, order = numbers(2, 5, 6).double(), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(encoder(tokens[:, order]), encoder(tokens))
    padded = torch.cat([tokens, numbers(2, 3, 6, seed=1).double()], 1)
    torch.testing.assert_close(encoder(padded, torch.arange(8).expand(2, -1) < 5), encoder(tokens))


@torch.no_grad()
def test_blocks_share_their_weights_and_reads_but_the_first_share_theirs():
    encoder = LatentEncoder(6, 4, 16, 1, num_blocks=3, num_reads=3, num_heads=2, init_std=0.5).double()
    tokens = numbers(2, 5, 6).double()
    (layer,) = encoder.self_attends
    x = layer(encoder.cross_attend(encoder.latents[None], tokens))
    for _ in range(2):
        x = layer(encoder.next_cross_attend(x, tokens))
    torch.testing.assert_close(encoder(tokens), x)


def test_recomputing_changes_no_gradient():
    grads = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        encoder = LatentEncoder(6, 4, 16, 2, num_heads=2, with_cp=with_cp).train()
        encoder(numbers(2, 5, 6)).sum().backward()
        grads.append([parameter.grad for parameter in encoder.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*grads, strict=True))


# --- images -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_token_is_a_pixel_and_its_place():
    backbone = Perceiver(ARCH, img_size=4, num_bands=1)
    x = numbers(1, 3, 2, 2)
    tokens = backbone.tokens(x)
    assert tokens.shape == (1, 4, 3 + 2 + 4)
    torch.testing.assert_close(tokens[0, :, :3], x[0].flatten(1).T)
    torch.testing.assert_close(tokens[0, :, 3:], fourier_features(grid_places((2, 2)), 1, (4, 4)))


@torch.no_grad()
def test_maps_of_another_backbone_are_read_joined():
    stem = CoSwin('micro', img_size=32, out_indices=(1, 2)).eval()
    backbone = Perceiver(ARCH, 'map', 32, stem=stem, num_bands=2)
    x = numbers(2, 3, 32, 32)
    fine, coarse = stem(x)
    tokens = backbone.tokens(x)
    places = fine.shape[2] * fine.shape[3]
    assert tokens.shape == (2, places, fine.shape[1] + coarse.shape[1] + 10)
    torch.testing.assert_close(tokens[:, :, : fine.shape[1]], fine.flatten(2).transpose(1, 2))
    assert backbone.patches_resolution == tuple(fine.shape[2:])


@torch.no_grad()
def test_the_mean_of_the_latents():
    torch.manual_seed(0)
    backbone = Perceiver(ARCH, img_size=4, num_bands=1)
    (latents,) = backbone(x := numbers(2, 3, 4, 4))
    backbone.out_type = 'avg'
    torch.testing.assert_close(backbone(x)[0], latents.mean(1))


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({'inputs': 'pixels'}, "inputs is 'pixels'; use one of fourier, learned, conv, map"),
        ({'out_type': 'mean'}, "out_type is 'mean'; use one of raw, avg"),
        ({'arch': 'imagenett'}, "arch 'imagenett' is none of imagenet, micro; did you mean"),
        ({'arch': {'depth': 2}}, 'arch lacks num_latents, embed_dims'),
        ({'stem_channels': 8}, "stem_channels is 8, which inputs='fourier' does not take"),
        ({'inputs': 'map'}, "inputs is 'map' and stem left out"),
        ({'arch': {**ARCH, 'num_reads': 2}}, 'num_reads is 2 for num_blocks=1'),
    ],
)
def test_options_that_do_not_fit_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Perceiver(**{'arch': ARCH, **options})


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('PerceiverDecoder', {'num_queries': 0}),
        *(('PlaceQueryHead', {key: 0}) for key in ('num_classes', 'num_sampled', 'chunk_size')),
    ],
)
def test_outputs_of_none_are_refused(name, options):
    with pytest.raises(ValueError, match=f'{next(iter(options))} is 0; give at least 1'):
        build(name, **options)


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r'\(1, 3, 4, 4\); it takes \(B, 3, H, W\) with H and W at least 5'):
        Perceiver(ARCH, 'conv')(torch.zeros(1, 3, 4, 4))


# --- places -----------------------------------------------------------------------------------------------------------


def place_head(**options):
    torch.manual_seed(0)
    return PlaceQueryHead(4, 16, (8, 8), num_bands=3, init_std=0.5, **options)


@torch.no_grad()
def test_permuted_queries_have_permuted_answers_and_some_are_as_many():
    head, feats = place_head(), (numbers(2, 5, 16),)
    places = torch.rand(2, 9, 2, generator=torch.Generator().manual_seed(0))
    every, order = head(feats, places), torch.tensor([4, 2, 8, 0, 1, 3, 5, 7, 6])
    torch.testing.assert_close(head(feats, places[:, order]), every[:, order])
    torch.testing.assert_close(head(feats, places[:, 3:5]), every[:, 3:5])


@torch.no_grad()
def test_a_map_is_predicted_in_chunks_of_its_places():
    feats = (numbers(2, 5, 16),)
    whole, parts = place_head(), place_head(chunk_size=5)
    got = parts.predict_map(feats, (3, 4))
    assert got.shape == (2, 4, 3, 4)
    torch.testing.assert_close(got, whole.predict_map(feats, (3, 4)))
    corner = whole(feats, torch.tensor([[[1.0, 0.0]]]))  # right, top
    torch.testing.assert_close(got[:, :, 0, 3], corner[:, 0])
    assert whole(feats).shape == (2, 64, 4)  # of the resolution


def test_a_step_trains_on_some_of_the_places_and_on_none_that_is_ignored():
    feats = (numbers(2, 5, 16),)
    labels = torch.tensor([0, -1, 2])
    places = torch.tensor([[0.1, 0.2], [0.5, 0.5], [0.9, 0.3]])
    samples = [DataSample(places=places, place_labels=labels), DataSample(places=places[:1], place_labels=labels[:1])]
    head = place_head()
    logits = head(feats, places[None])
    counted = torch.stack([logits[0, 0], logits[0, 2], logits[1, 0]])
    expected = torch.nn.functional.cross_entropy(counted, torch.tensor([0, 2, 0]))
    torch.testing.assert_close(head.loss(feats, samples)['loss'], expected)
    seen = []
    head.num_sampled, forward = 1, head.forward
    head.forward = lambda feats, places: seen.append(places) or forward(feats, places)
    head.loss(feats, samples)
    assert seen[0].shape == (2, 1, 2) and any(torch.equal(seen[0][0, 0], place) for place in places)
    with pytest.raises(ValueError, match="sample 0 of the batch has no 'place_labels'"):
        head.loss(feats, [DataSample(places=places)])


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_masked_bytes_learn_a_text_and_fill_it_in():
    torch.manual_seed(0)
    sizes = {'num_latents': 4, 'embed_dims': 32, 'depth': 1, 'num_heads': 2, 'cross_heads': 2}
    model = PerceiverMaskedLM(
        encoder={**sizes, 'qk_channels': 16, 'v_channels': 32},
        token_dims=32,
        max_text_len=12,
        decoder_heads=2,
        decoder_qk_channels=16,
        probability=0.4,
        init_std=0.2,
    )
    samples = [DataSample(text='two dogs'), DataSample(text='a cat')]
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.05, 300)  # right with five seeds, with AVX and without
    for _ in range(300):
        optimizer.zero_grad()
        model(None, samples, mode='loss')['loss_mlm'].backward()
        optimizer.step()
        schedule.step()
    asked = [DataSample(text='two <mask>ogs'), DataSample(text='a c<mask>t'), DataSample(text='a cat')]
    first, second, third = model.eval()(None, asked, mode='predict')
    assert (first.pred_text, second.pred_text) == ('two dogs', 'a cat') and 'pred_text' not in third


def test_nothing_to_read_is_refused():
    model = PerceiverMaskedLM(encoder={**ARCH, 'cross_heads': 2}, token_dims=16, max_text_len=12)
    with pytest.raises(ValueError, match='give samples with text'):
        model(None, [], mode='loss')
    with pytest.raises(ValueError, match="sample 0 of the batch has no 'text'"):
        model(None, [DataSample()], mode='loss')
