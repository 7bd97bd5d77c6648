import multiprocessing
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

import florence_mm
from florence_mm.models.heads.multimodal import mlm
from florence_mm.models.multimodal import METER, VisionLanguageModel
from florence_mm.models.multimodal.batch import FusionBatch, find_equal
from florence_mm.models.multimodal.co_attention import CoAttentionFusion
from florence_mm.registry import MODELS

WORKER = Path(__file__).parent / 'meter_worker.py'
worker = runpy.run_path(str(WORKER))
build, batch, preprocessed, pictures = (worker[name] for name in ('build', 'batch', 'preprocessed', 'pictures'))
QUESTIONS, ToyEncoder = worker['QUESTIONS'], worker['ToyEncoder']
TEXTS = [worker['clip_text'], worker['roberta_text']]


@pytest.mark.parametrize('window', [7, 12])
def test_parameters_of_the_papers_model(window):
    # the count that Microsoft states for METER-CoSwin-Huge is 878M; CoSwin-H itself is inferred (docs/coswin.md)
    coswin = {7: 637_370_912, 12: 637_798_112}[window]
    with torch.device('meta'):
        model = METER(
            {'type': 'CoSwin', 'arch': 'huge', 'img_size': 384, 'window_size': window},
            {'type': 'RobertaTextEncoder', 'config': {}},
            {'type': 'RobertaTextTokenizer'},
        )

    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert count(model.image_encoder) == pytest.approx(coswin, rel=1e-3)
    # embeddings of 50265 words, 514 positions and 1 type with their norm, and 12 layers
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    assert count(model.text_encoder) == (50265 + 514 + 1 + 2) * 768 + 12 * layer == 124_055_040
    co_attention = 8 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 6 * 768
    transforms = 768 * 768 + 768 + 2048 * 768 + 768
    poolers = 2 * (768 * 768 + 768)
    assert count(model.cross_modal) == 12 * co_attention + transforms + poolers == 116_766_720
    assert count(model.token_type_embeddings) == 2 * 768
    assert round(count(model) / 1e6, 1) == {7: 878.2, 12: 878.6}[window]


@pytest.mark.parametrize('text', TEXTS)
def test_one_training_step_reaches_every_parameter(text):
    model = build(text=text)
    torch.manual_seed(0)
    losses = model(**preprocessed(model), mode='loss')
    assert set(losses) == {'loss_itm', 'acc_itm', 'loss_mlm', 'acc_mlm', 'loss_vqa', 'acc_vqa'}
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not any(losses[name].requires_grad for name in losses if 'acc' in name)


def test_tokens_are_transformed_maps_and_texts_with_their_types():
    model = build()
    data = preprocessed(model)
    maps = model.image_encoder(data['inputs'])[1]  # (4, 6, 2, 2)
    tokens = torch.stack([maps[:, :, row, column] for row in (0, 1) for column in (0, 1)], 1)  # (4, 4, 6)
    transform, types = model.cross_modal.image_transform, model.token_type_embeddings.weight
    expected = tokens @ transform.weight.T + transform.bias + types[1]
    torch.testing.assert_close(model.encode_image(data['inputs']), expected)
    ids, text_tokens = model.encode_text(QUESTIONS)
    features = model.text_encoder(ids.input_ids, ids.mask)
    transform = model.cross_modal.text_transform
    torch.testing.assert_close(text_tokens, features @ transform.weight.T + transform.bias + types[0])
    fused = model(**data, mode='tensor')
    cross = model.cross_modal
    text = torch.tanh(cross.text_pooler.dense(fused.text[:, 0]))
    image = torch.tanh(
        cross.image_pooler.dense((fused.image[:, 0] + fused.image[:, 1] + fused.image[:, 2] + fused.image[:, 3]) / 4)
    )
    torch.testing.assert_close(fused.pooled, torch.cat([text, image], 1))
    torch.testing.assert_close(model(data['inputs']), model.encode_image(data['inputs']))


def test_equal_pictures_are_encoded_once():
    model = build(('vqa',)).eval()
    inputs = pictures(2)[[0, 1, 0, 0]]
    shared = model.val_step(batch(inputs=inputs))
    assert model.image_encoder.seen == [2]
    for i, sample in enumerate(shared):
        alone = model.val_step({k: v[i : i + 1] for k, v in batch(inputs=inputs).items()})[0]
        torch.testing.assert_close(alone.pred_scores, sample.pred_scores, rtol=1e-5, atol=1e-6)
    # gradients of the shared picture add up
    model.train()
    expected = build(('vqa',))
    model(**preprocessed(model, batch(inputs=inputs)), mode='loss')['loss_vqa'].backward()
    data = preprocessed(expected, batch(inputs=inputs))
    four = FusionBatch(expected, data['inputs'], data['data_samples'], image_of=range(4))
    expected.heads['vqa'].loss(four)['loss_vqa'].backward()
    assert expected.image_encoder.seen == [4]
    torch.testing.assert_close(model.image_encoder.conv.weight.grad, expected.image_encoder.conv.weight.grad)


def test_pictures_that_differ_in_a_pixel_or_in_order_are_different():
    inputs = torch.zeros(4, 3, 2, 2)
    inputs[1, 0, 0, 0] = inputs[2, 0, 1, 1] = inputs[3, 0, 0, 0] = 1  # 1 and 2 have one sum
    assert find_equal(inputs) == ([0, 1, 2], [0, 1, 2, 1])


@pytest.mark.parametrize('text', TEXTS)
@pytest.mark.parametrize('causal', [False, True])
def test_equal_texts_are_encoded_once(text, causal):
    model = build(text=text).eval()
    encoded = []
    model.text_encoder.register_forward_pre_hook(lambda _, arguments: encoded.append(arguments[0].tolist()))
    texts = [QUESTIONS[0], QUESTIONS[1], QUESTIONS[0], 'how', QUESTIONS[1]]
    tokens = model.tokenize(texts)
    made = model.encode_tokens(tokens, causal)
    assert encoded == [tokens.input_ids[[0, 1, 3]].tolist()]
    # a batch of one text has its own length
    for place, one in enumerate(texts):
        alone = model.tokenize([one])
        expected = model.encode_tokens(alone, causal)
        torch.testing.assert_close(made[place, : alone.mask.sum()], expected[0])


@pytest.mark.parametrize('text', TEXTS)
def test_gradients_of_equal_texts_add_up(text):
    shared, single = (build(text=text).double().train() for _ in range(2))
    encoded = []
    shared.text_encoder.register_forward_pre_hook(lambda _, arguments: encoded.append(len(arguments[0])))
    texts = [QUESTIONS[0], QUESTIONS[1], QUESTIONS[0]]
    tokens, made = shared.encode_text(texts)
    weights = torch.rand(made.shape, generator=torch.Generator().manual_seed(0)).double() * tokens.mask[..., None]
    (made * weights).sum().backward()
    assert encoded == [2]
    for one, weight in zip(texts, weights, strict=True):
        tokens, made = single.encode_text([one])
        (made[0] * weight[: tokens.mask.sum()]).sum().backward()
    for part in ('text_encoder', 'cross_modal.text_transform'):
        for left, right in zip(*(m.get_submodule(part).parameters() for m in (shared, single)), strict=True):
            torch.testing.assert_close(left.grad, right.grad, rtol=1e-9, atol=1e-12)


def test_dropout_makes_equal_texts_differ():
    model = build(text=TEXTS[1])
    dropout = [part for part in model.text_encoder.modules() if isinstance(part, torch.nn.Dropout)][-1]
    dropout.p = 0.5
    for training in (True, False):
        _, (first, second) = model.train(training).encode_text([QUESTIONS[0]] * 2)
        assert first.equal(second) == (not training)


def test_questions_on_pictures_that_are_encoded_once(monkeypatch):
    model = build(('vqa',)).eval()
    inputs = preprocessed(model)['inputs'][:2]
    pairs = [(picture, text) for picture in (0, 1) for text in range(4)]
    expected = model.val_step(batch([QUESTIONS[t] for _, t in pairs], pictures()[[p for p, _ in pairs]]))
    model.image_encoder.seen.clear()
    tokens = model.encode_image(inputs)
    for at_once in (3, 64):
        monkeypatch.setattr(VisionLanguageModel._batches, '__defaults__', (at_once,))
        answers = model.answer(tokens, QUESTIONS, pairs, top=5)
        for got, sample in zip(answers, expected, strict=True):
            assert got.answers[0] == sample.pred_answer and len(got.answers) == 5
            scores = torch.tensor([sample.pred_scores[worker['ANSWERS'].index(answer)] for answer in got.answers])
            torch.testing.assert_close(torch.tensor(got.scores), scores, rtol=1e-5, atol=1e-6)
            assert got.scores == sorted(got.scores, reverse=True)
    assert model.image_encoder.seen == [2]
    assert [len(one.answers) for one in model.answer(tokens, QUESTIONS, pairs)] == [1] * 8
    assert model.answer(tokens, QUESTIONS, []) == []


def test_pairs_of_pictures_and_texts_are_scored():
    model = build(('itm',)).eval()
    inputs = preprocessed(model)['inputs']
    tokens = model.encode_image(inputs)
    pairs = [(0, 1), (3, 0), (2, 2), (1, 3), (0, 0)]
    scores = model.match(tokens, QUESTIONS, pairs, at_once=2)
    data = batch([QUESTIONS[t] for _, t in pairs], pictures()[[p for p, _ in pairs]])
    expected = torch.tensor([sample.match_score for sample in model.val_step(data)])
    torch.testing.assert_close(scores.sigmoid(), expected, rtol=1e-5, atol=1e-6)
    assert model.match(tokens, QUESTIONS, []).shape == (0,)
    torch.testing.assert_close(model.match(tokens, QUESTIONS, pairs), (expected / (1 - expected)).log())
    assert not scores.requires_grad


def test_scores_of_pairs_keep_their_order_where_probabilities_are_equal():
    model = build(('itm',)).eval()
    head = model.heads.itm.fc
    tokens, pairs = model.encode_image(preprocessed(model)['inputs']), [(0, 1), (3, 0), (2, 2)]
    before = model.match(tokens, QUESTIONS, pairs)
    assert before.argsort().tolist() != [0, 1, 2] and len(before.unique()) == 3
    with torch.no_grad():
        head.bias[1] += 40
    after = model.match(tokens, QUESTIONS, pairs)
    assert after.sigmoid().tolist() == [1, 1, 1]
    torch.testing.assert_close(after, before + 40)
    assert after.argsort().tolist() == before.argsort().tolist()


def test_another_resolution_after_pretraining(tmp_path):
    heads = {'vqa': {'type': 'FusionVQAHead', 'answers': ['yes', 'no']}}
    image = {'type': 'CoSwin', 'arch': {'embed_dims': 16, 'depths': [1, 1], 'num_heads': [1, 2], 'window_size': 4}}
    encoder, tokenizer = worker['clip_text']()
    torch.manual_seed(0)
    model = METER({**image, 'img_size': 64}, encoder, tokenizer, {'hidden_size': 16, 'num_heads': 2}, heads, 20).eval()
    torch.save(model.state_dict(), tmp_path / 'a.pth')
    other = METER({**image, 'img_size': 96}, encoder, tokenizer, {'hidden_size': 16, 'num_heads': 2}, heads, 20).eval()
    other.load_state_dict(torch.load(tmp_path / 'a.pth', weights_only=True))
    large = torch.randn(1, 3, 96, 72)
    assert model.encode_image(torch.randn(1, 3, 64, 64)).shape == (1, 64, 16)
    assert model.encode_image(large).shape == (1, 12 * 9, 16)
    torch.testing.assert_close(other.encode_image(large), model.encode_image(large))
    (answered,) = model.answer(model.encode_image(large), ['is it'], [(0, 0)], top=3)
    assert sorted(answered.answers) == ['no', 'yes']


def test_cross_attention_on_demand():
    model = build(()).eval()
    data = preprocessed(model)
    tokens, text = model.encode_text(QUESTIONS)
    image = model.encode_image(data['inputs'])
    plain, fused = model.fuse(text, tokens.mask, image), model.fuse(text, tokens.mask, image, attention_layers=(-1,))
    assert plain.attention == {}
    assert fused.attention[-1].text_to_image.shape == (4, 2, tokens.mask.shape[1], 4)
    torch.testing.assert_close(fused.pooled, plain.pooled)


def test_two_processes_learn_what_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr(mlm, 'mask_tokens', worker['every_second_token'])
    expected = worker['gradients'](build(('mlm', 'vqa')).double(), batch())
    # forked: they need not import all packages again
    context = multiprocessing.get_context('fork')
    arguments = (2, str(tmp_path / 'meet'), str(tmp_path / 'out'))
    processes = [context.Process(target=worker['one_process'], args=(rank, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    for rank in range(2):
        got = torch.load(tmp_path / f'out.{rank}', weights_only=True)
        assert set(got) == set(expected)
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-12, msg=name)


def test_transformers_is_imported_by_roberta_alone(monkeypatch):
    at_import = re.compile(r'^(from|import) transformers\b', re.MULTILINE)
    package = Path(florence_mm.__file__).parent
    assert [path for path in package.rglob('*.py') if at_import.search(path.read_text(encoding='utf-8'))] == []
    monkeypatch.setitem(sys.modules, 'transformers', None)  # importing it fails
    model = build()
    assert model(**preprocessed(model), mode='loss')['loss_vqa'] > 0
    with pytest.raises(ImportError):
        build(text=worker['roberta_text'])


def test_refusals():
    encoder, tokenizer = worker['clip_text']()
    with pytest.raises(
        ValueError, match='there are 60 tokens in max_text_len and context_length of CLIPTokenEncoder is 20'
    ):
        build(max_text_len=60)
    with pytest.raises(
        ValueError, match='there are 701 ids in the tokenizer and vocab_size of CLIPTokenEncoder is 601'
    ):
        METER(ToyEncoder(), encoder, {**tokenizer, 'vocab_size': 700}, max_text_len=20)
    for name, kind in (('mlm', 'FusionMLMHead'), ('caption', 'FusionCaptionHead')):
        with pytest.raises(ValueError, match=f"head '{name}' is 600 and the tokenizer has 601 ids; the head needs"):
            build({name: {'type': kind, 'vocab_size': 600}})
        assert build({name: {'type': kind, 'vocab_size': 640}}).heads[name].vocab_size == 640  # padded
    with pytest.raises(ValueError, match='Conv2d has no num_features'):
        METER(torch.nn.Conv2d(3, 3, 1), encoder, tokenizer, max_text_len=20)
    several = ToyEncoder()
    several.num_features = [4, 8]  # as mmpretrain's SwinTransformer has
    with pytest.raises(ValueError, match=r'num_features of ToyEncoder is \[4, 8\], and METER needs one number'):
        METER(several, encoder, tokenizer, max_text_len=20)
    with pytest.raises(ValueError, match='hidden_size is 768, which num_heads=5 does not divide'):
        METER(ToyEncoder(), encoder, tokenizer, {'num_heads': 5}, max_text_len=20)
    model = build(())
    data = preprocessed(model)
    with pytest.raises(ValueError, match='METER has no heads and nothing to train'):
        model(**data, mode='loss')
    with pytest.raises(ValueError, match='has no head that answers questions, it has none'):
        model.answer(model.encode_image(data['inputs']), QUESTIONS, [(0, 0)])
    with pytest.raises(ValueError, match="mode is 'train'"):
        model(**data, mode='train')
    model = build()
    with pytest.raises(ValueError, match='without data_samples'):
        model(data['inputs'], None, 'loss')
    with pytest.raises(ValueError, match='4 images and 3 data samples'):
        model(data['inputs'], data['data_samples'][:3], 'loss')
    del data['data_samples'][2].text
    with pytest.raises(ValueError, match="sample 2 of the batch has no 'text'"):
        model(**data, mode='loss')


def test_heads_get_the_spread_of_the_fusion():
    heads = {'vqa': {'type': 'FusionVQAHead', 'num_answers': 200}, 'mlm': {'type': 'FusionMLMHead'}}
    tower = {'arch': {'embed_dims': 16, 'num_layers': 1, 'num_heads': 2}, 'vocab_size': 4096}
    for given, std in (({}, 0.02), ({'init_std': 0.1}, 0.1)):
        model = MODELS.build({
            'type': 'METER',
            'image_encoder': {'type': 'CoSwin', 'arch': 'micro'},
            'text_encoder': {'type': 'CLIPTokenEncoder', 'tower': tower},
            'tokenizer': {'type': 'MaskedCLIPTokenizer', 'vocab_size': 4096},
            'fusion': {'hidden_size': 64, 'num_layers': 1, 'num_heads': 2, **given},
            'heads': heads,
        })  # fmt: skip
        for layer in (model.heads.vqa.classifier[3], model.heads.mlm.decoder, model.cross_modal.text_transform):
            assert float(layer.weight.std()) == pytest.approx(std, rel=0.1)


def test_spread_of_the_first_weights():
    for given, std in (({}, 0.02), ({'init_std': 0.1}, 0.1)):
        fusion = CoAttentionFusion(64, 64, 64, num_layers=1, num_heads=2, **given)
        for layer in (fusion.text_transform, fusion.image_pooler.dense, fusion.layers.text_layers[0].attention.qkv):
            assert float(layer.weight.std()) == pytest.approx(std, rel=0.1)
            assert not layer.bias.any()
