"""UNITER's embedding, hidden regions and losses, by hand, and its public layout."""

import pytest
import torch
from instances import build
from mmpretrain.structures import DataSample
from public_vilt import FEATURES, WIDTH, our_uniter, public_uniter
from small_uniter import UNITER as SMALL
from torch.nn import functional as F

from florence_mm.models.checkpoints.formats import convert_state_dict
from florence_mm.models.heads.multimodal.masked_regions import choose_regions
from florence_mm.models.heads.multimodal.mlm import mask_tokens
from florence_mm.models.multimodal import UNITER, RetrievalReranker
from florence_mm.ops.collectives import Peers

TEXTS = ['a red two', 'no dog']


def regions(*counts):
    """Features and positions ``(R, F + 7)`` of images with so many regions."""
    generator = torch.Generator().manual_seed(len(counts))
    return [torch.randn(count, FEATURES + 7, generator=generator) for count in counts]


def batch_of(model, rows, **fields):
    samples = [
        DataSample(text=text, **{key: value[n] for key, value in fields.items()}) for n, text in enumerate(TEXTS)
    ]
    return model.data_preprocessor({'inputs': rows, 'data_samples': samples}, True)


@torch.no_grad()
def test_embedding_by_hand():
    model = our_uniter()
    part, (rows,) = model.region_embeddings, regions(3)
    features, places = rows.split([FEATURES, 7], 1)
    kind = model.text_stack.embeddings.token_type_embeddings.weight[1]

    def norm(x, layer):
        x = (x - x.mean(1, keepdim=True)) / x.var(1, keepdim=True, unbiased=False).add(1e-12).sqrt()
        return x * layer.weight + layer.bias

    def embedded(features):
        f = norm(features @ part.img_linear.weight.T + part.img_linear.bias, part.img_layer_norm)
        p = norm(places @ part.pos_linear.weight.T + part.pos_linear.bias, part.pos_layer_norm)
        return norm(f + p + kind, part.LayerNorm)

    tokens = model.encode_image(rows[None])
    torch.testing.assert_close(tokens[0, :, :-1], embedded(features), rtol=1e-5, atol=1e-5)
    assert tokens[0, :, -1].tolist() == [1, 1, 1]
    hidden = torch.tensor([[False, True, False]])
    features[1] = part.mask_embedding
    torch.testing.assert_close(
        model.encode_image(rows[None], hidden)[0, :, :-1], embedded(features), rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_words_and_regions_are_read_by_one_bert():
    transformers = pytest.importorskip('transformers')
    model = our_uniter()
    layers = transformers.BertModel(
        transformers.BertConfig(
            hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=601
        )
    ).eval()
    state = {}
    for key, value in model.text_stack.state_dict().items():
        key = key.replace('layers.', 'encoder.layer.')
        if '.qkv.' in key:
            for name, third in zip(('query', 'key', 'value'), value.chunk(3), strict=True):
                state[key.replace('.qkv.', f'.self.{name}.')] = third
        elif key.startswith('encoder'):
            state[key] = value
    layers.load_state_dict(state, strict=False)
    data = batch_of(model, regions(3, 5))
    tokens = model.tokenize(TEXTS)
    image = model.encode_image(data['inputs'])
    got = model.fuse(model.encode_tokens(tokens), tokens.mask, image)
    x = torch.cat([model.encode_tokens(tokens), image[..., :-1]], 1)
    mask = torch.cat([tokens.mask, image[..., -1] > 0], 1)
    expected = layers.encoder(x, attention_mask=torch.where(mask, 0.0, -torch.inf)[:, None, None]).last_hidden_state
    expected = expected * mask[..., None]
    torch.testing.assert_close(torch.cat([got.text, got.image], 1), expected, rtol=1e-5, atol=1e-5)
    pooled = (expected[:, 0] @ model.pooler.weight.T + model.pooler.bias).tanh()
    torch.testing.assert_close(got.pooled, pooled, rtol=1e-5, atol=1e-5)


def test_at_least_one_token_or_region_is_hidden_and_of_one_modality():
    model = our_uniter()
    real = torch.tensor([[True, True, False], [True, False, False]])
    torch.manual_seed(0)
    drawn = torch.stack([choose_regions(real, 1e-9) for _ in range(20)])
    assert (drawn.sum(2) == 1).all() and not drawn[:, ~real].any() and drawn[:, 0, :2].any(0).all()
    share = torch.stack([choose_regions(torch.ones(1, 100, dtype=torch.bool), 0.15) for _ in range(50)]).float().mean()
    assert abs(float(share) - 0.15) < 0.02
    tokens = model.tokenize(TEXTS)
    for whole in (False, True):
        _, chosen = mask_tokens(tokens, model.tokenizer, 1e-9, whole, at_least_one=True)
        assert (chosen.sum(1) == 1).all() if not whole else (chosen.sum(1) >= 1).all()
        assert not (chosen & ~tokens.mask).any() and not chosen[:, 0].any()
    # hidden regions are told from a whole text, and hidden words from all regions
    head, seen = model.heads['mrfr'], []
    fuse = model.fuse
    model.fuse = lambda text, mask, image: (seen.append((text, image)), fuse(text, mask, image))[1]
    data = batch_of(model, regions(3, 5))
    batch = model.make_batch(data['inputs'], data['data_samples'])
    whole_text, whole_image = model.encode_tokens(batch.tokens), model.encode_image(batch.images)
    head.loss(batch)
    assert torch.equal(seen[0][0], whole_text) and not torch.equal(seen[0][1], whole_image)
    model.heads['mlm'].loss(batch)
    assert not torch.equal(seen[1][0], whole_text) and torch.equal(seen[1][1], whole_image)


def hidden_as_drawn(model, batch):
    torch.manual_seed(5)
    _, real = model.region_features(batch.images)
    return choose_regions(real)


def test_losses_of_hidden_regions_by_hand():
    model = our_uniter()
    probabilities = [torch.rand(count, 5).softmax(1) for count in (3, 5)]
    data = batch_of(model, regions(3, 5), region_classes=probabilities)
    batch = model.make_batch(data['inputs'], data['data_samples'])
    hidden = hidden_as_drawn(model, batch)
    fused = model.fuse(batch.text_tokens, batch.tokens.mask, model.encode_image(batch.images, hidden))
    rows = fused.image[hidden]
    head = model.heads['mrfr']
    x = head.net(rows) @ model.region_embeddings.img_linear.weight + head.bias  # the transpose of the projection
    expected = (x - data['inputs'][..., :FEATURES][hidden]).square().mean()
    torch.manual_seed(5)
    torch.testing.assert_close(head.loss(batch)['loss_mrfr'], expected)

    head = model.heads['mrc']
    p = torch.cat([own[which[: len(own)]] for own, which in zip(probabilities, hidden, strict=True)])
    q = head.net(rows).softmax(1)
    torch.manual_seed(5)
    torch.testing.assert_close(head.loss(batch)['loss_mrc'], (p * (p / q).log()).sum(1).mean())
    head.kind = 'hard'
    best = p[:, 1:].argmax(1) + 1  # background is never the target
    torch.manual_seed(5)
    torch.testing.assert_close(head.loss(batch)['loss_mrc'], F.cross_entropy(head.net(rows), best))


def test_one_task_a_step_by_weights():
    model = our_uniter()
    named = list(model.heads)
    torch.manual_seed(0)
    drawn = [model._draw_task(named) for _ in range(3000)]
    shares = {name: drawn.count(name) / len(drawn) for name in named}
    for name, share in {'itm': 1 / 3, 'mlm': 1 / 3, 'mrfr': 1 / 6, 'mrc': 1 / 6}.items():
        assert shares[name] == pytest.approx(share, abs=0.03)
    fields = {'region_classes': [torch.rand(n, 5).softmax(1) for n in (3, 5)], 'false_inputs': regions(4, 2)}
    data = batch_of(model, regions(3, 5), **fields)
    names = {'itm': {'loss_itm', 'loss_alignment'}, 'mlm': {'loss_mlm'}, 'mrfr': {'loss_mrfr'}, 'mrc': {'loss_mrc'}}
    for _ in range(6):
        losses = {name for name in model.loss(**data) if name.startswith('loss')}
        assert losses in names.values()
    with pytest.raises(ValueError, match='the task weights of UNITER'):
        our_uniter(tasks={'itm': -1})
    with pytest.raises(ValueError, match='UNITER got images without data_samples'):
        model.loss(data['inputs'], [])


def test_a_task_of_weight_0_is_never_trained():
    model = our_uniter(tasks={'itm': 0, 'mlm': 1, 'mrfr': 0, 'mrc': 0})
    assert model.heads_of_step() == [model.heads['mlm']]
    model.tasks = {'itm': 0, 'mlm': 1, 'mrfr': 0}
    assert model.heads_of_step() == [model.heads['mlm'], model.heads['mrc']]  # mrc is no task here
    with pytest.raises(ValueError, match=r'are 0 for all heads \(itm, mlm, mrfr, mrc\); raise one'):
        our_uniter(tasks=dict.fromkeys(['itm', 'mlm', 'mrfr', 'mrc'], 0))


@torch.no_grad()
def test_padding_of_regions_changes_nothing():
    model = our_uniter()
    rows = regions(3, 5)
    together = batch_of(model, rows)['inputs']
    assert together.shape == (2, 5, FEATURES + 8)
    tokens = model.tokenize(TEXTS)
    fused = model.fuse(model.encode_tokens(tokens), tokens.mask, model.encode_image(together))
    alone = model.fuse(*(x[:1] for x in (model.encode_tokens(tokens), tokens.mask)), model.encode_image(rows[0][None]))
    torch.testing.assert_close(fused.pooled[:1], alone.pooled, rtol=1e-5, atol=1e-5)
    assert not fused.image[0, 3:].any() and fused.parts.sum(1).tolist() == [3, 5]
    with pytest.raises(ValueError, match=r'feature_dims=12; give regions'):
        model.encode_image(torch.zeros(2, 3, 32, 32))


def test_the_public_layout_is_read_whole():
    state = public_uniter()
    name, converted, skipped = convert_state_dict(state)
    assert name == 'UNITER' and set(skipped) == {'cls.predictions.decoder.weight', 'feat_regress.weight'}
    model = our_uniter()
    model.load_state_dict(converted)
    assert torch.equal(model.region_embeddings.mask_embedding, state['uniter.img_embeddings.mask_embedding.weight'][1])
    broken = {**state, 'feat_regress.weight': state['feat_regress.weight'] + 1}
    with pytest.raises(ValueError, match=r'its feat_regress\.weight is not tied'):
        convert_state_dict(broken)


@pytest.mark.parametrize(
    ('text', 'millions'),
    [({}, 86), ({'hidden_size': 1024, 'num_layers': 24, 'num_heads': 16}, 303)],
)
def test_published_sizes_without_embeddings(text, millions):
    with torch.device('meta'):
        model = UNITER({'type': 'BertTextTokenizer'}, text={'vocab_size': 30522, **text})
    words = model.word_embeddings.weight.numel()
    size = sum(p.numel() for name, p in model.named_parameters() if 'embeddings' not in name)
    assert abs(size / 1e6 - millions) < 1.0, (size, words)


@torch.no_grad()
def test_a_fusion_model_of_regions_matches_those_of_the_samples():
    heads = {'itm': {'type': 'FusionITMHead', 'negatives': 'half'}}
    model = RetrievalReranker(build('UniCL'), {**SMALL, 'feature_dims': FEATURES, 'heads': heads}).eval()
    for parameter in model.matcher.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    assert type(model.matcher.data_preprocessor).__name__ == 'RegionDataPreprocessor'
    rows, pairs = regions(3, 1), [(0, 0), (1, 0), (1, 1)]
    pixels = torch.zeros(2, 3, 16, 24, dtype=torch.uint8)
    samples = [DataSample(regions=one, text=text) for one, text in zip(rows, TEXTS, strict=True)]
    found = model.match_pictures({'inputs': list(pixels), 'data_samples': samples}, TEXTS, pairs)
    padded = model.matcher.data_preprocessor({'inputs': rows}, False)['inputs']
    wanted = model.matcher.match(model.matcher.encode_image(padded), TEXTS, pairs)
    assert torch.equal(found, wanted) and len(set(wanted.tolist())) == 3
    torch.manual_seed(0)
    losses = model.loss(model.data_preprocessor({'inputs': pixels})['inputs'], samples)
    torch.manual_seed(0)
    assert torch.equal(losses['loss_itm'], model.matcher.loss(padded, samples)['loss_itm'])
    with pytest.raises(ValueError, match='UNITER matches regions, and samples have none; load them beside the image'):
        model.match_pictures({'inputs': list(pixels), 'data_samples': [DataSample(text='a')] * 2}, TEXTS, pairs)


def test_all_processes_take_the_task_that_the_first_has_drawn(monkeypatch):
    model = build('UNITER')
    monkeypatch.setattr(model, 'tasks', {'a': 1.0, 'b': 1.0, 'c': 2.0})
    for drawn, task in ((0.0, 'a'), (0.3, 'b'), (0.6, 'c'), (0.99, 'c')):
        monkeypatch.setattr(Peers, 'gather_rows', lambda self, own, first=drawn: torch.tensor([first, *own.tolist()]))
        assert {model._draw_task(['a', 'b', 'c']) for _ in range(8)} == {task}
