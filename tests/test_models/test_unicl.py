import math
import runpy
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmengine.optim import OptimWrapper
from torch import nn
from torch.nn import functional as F

import florence_mm.models.algorithms.class_features as class_features_module
import florence_mm.models.algorithms.unicl as unicl_module
from florence_mm.engine.optim import FlorenceAmpOptimWrapper
from florence_mm.models.algorithms import UniCL
from florence_mm.models.layers.mlp import DropPath
from florence_mm.models.preprocessor import ImageTextDataPreprocessor
from florence_mm.models.text import CLIPTextTower
from florence_mm.models.tokenizers import CLIPTokenizer
from florence_mm.registry import MODELS

worker = runpy.run_path(str(Path(__file__).with_name('unicl_worker.py')))
build, batch, gradients = worker['build'], worker['batch'], worker['gradients']
CLASSES = ['dog', 'cat', 'red, ball+s']
TEMPLATES = ['a {}.', 'one {} here']


def preprocessed(model):
    return model.data_preprocessor(batch(), True)


def test_parameters_are_those_of_the_public_release():
    model = build()
    state = model.state_dict()
    top = {key for key in state if not key.startswith(('image_encoder.', 'text_encoder.'))}
    assert top == {'image_projection', 'text_projection', 'logit_scale'}
    assert state['image_projection'].shape == (6, 8)
    assert state['text_projection'].shape == (16, 8)
    assert state['logit_scale'].shape == ()


def test_temperature_starts_where_told():
    assert build(logit_scale_init=1.0).temperature().item() == pytest.approx(math.e)
    assert build(logit_scale_init=math.log(1 / 0.07)).temperature().item() == pytest.approx(1 / 0.07)


def test_features_are_projected_means_and_end_tokens():
    model = build()
    inputs = preprocessed(model)['inputs']
    maps = model.image_encoder(inputs)[1]  # (8, 6, 2, 2)
    mean = (maps[..., 0, 0] + maps[..., 0, 1] + maps[..., 1, 0] + maps[..., 1, 1]) / 4
    feature = mean @ model.image_projection
    expected = feature / feature.square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(model.extract_image_feat(inputs), expected)
    feature = model.text_encoder(model.tokenizer(['a dog', 'night'])) @ model.text_projection
    expected = feature / feature.square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(model.extract_text_feat(['a dog', 'night']), expected)


def test_loss_is_the_papers():
    model = build()
    data = preprocessed(model)
    losses = model(**data, mode='loss')
    image, text = model(**data, mode='tensor')
    for feature in (image, text):
        torch.testing.assert_close(feature.norm(dim=1), torch.ones(8))
    logits = math.exp(2.0) * image @ text.T
    # the classes of TEXTS after normalisation, by hand: 'a dog' is also 'A Dog.', 'two cats' also 'two  cats'
    classes = torch.tensor([0, 1, 0, 2, 3, 1, 0, 4])
    target = (classes[:, None] == classes).float()
    target /= target.sum(1, keepdim=True)
    torch.testing.assert_close(losses['loss_i2t'], -(target * logits.log_softmax(1)).sum(1).mean())
    torch.testing.assert_close(losses['loss_t2i'], -(target * logits.T.log_softmax(1)).sum(1).mean())
    assert float(losses['temperature']) == pytest.approx(math.exp(2.0))
    assert not losses['temperature'].requires_grad


def test_logged_loss_is_the_plain_sum():
    model = build()
    log = gradients(model, batch())
    torch.testing.assert_close(log['log.loss'], log['log.loss_i2t'] + log['log.loss_t2i'])


@pytest.mark.parametrize(('limit', 'value'), [(100.0, 100.0), (20.0, 20.0), (None, math.exp(5.0))])
def test_temperature_is_held_at_its_limit_and_keeps_its_gradient(limit, value):
    model = build(logit_scale_init=5.0, max_logit_scale=limit)
    log = gradients(model, batch())
    assert log['log.temperature'].item() == pytest.approx(value)
    assert model.temperature().item() == pytest.approx(value)
    assert log['logit_scale'] != 0


def test_a_larger_temperature_of_a_checkpoint_is_kept_in_prediction():
    model = build(logit_scale_init=6.0, max_logit_scale=100.0).eval()
    model.set_classes(CLASSES, TEMPLATES)
    model.predict(preprocessed(model)['inputs'])
    assert model.logit_scale.item() == 6.0


def test_zero_shot_prediction_by_hand():
    model = build().eval()
    model.set_classes(CLASSES, TEMPLATES)
    samples = model.val_step(batch())
    with torch.no_grad():
        image = model(**preprocessed(model), mode='tensor')[0]
        prompts = [['a dog.', 'one dog here'], ['a cat.', 'one cat here'], ['a red ball s.', 'one red ball s here']]
        means = torch.stack([model.extract_text_feat(texts).mean(0) for texts in prompts])
        scores = (math.exp(2.0) * image @ (means / means.norm(dim=1, keepdim=True)).T).softmax(1)
    assert len(samples) == 8
    for sample, score, feature in zip(samples, scores, image, strict=True):
        torch.testing.assert_close(sample.pred_score, score)
        torch.testing.assert_close(sample.image_feat, feature)
        assert sample.pred_label.tolist() == [int(score.argmax())]
        assert 'text_feat' not in sample


def test_prediction_without_classes_and_with_captions():
    model = build().eval()
    data = batch()
    data['data_samples'][1].texts = ['a dog', 'two', 'three']
    data['data_samples'][4].texts = ['night']
    samples = model.val_step(data)
    assert 'pred_score' not in samples[0]
    with torch.no_grad():
        expected = model.extract_text_feat(['a dog', 'two', 'three', 'night'])
    torch.testing.assert_close(samples[1].text_feat, expected[:3])
    torch.testing.assert_close(samples[4].text_feat, expected[3:])
    assert 'text_feat' not in samples[0]
    made = model.predict(preprocessed(model)['inputs'])
    torch.testing.assert_close(made[4].image_feat, samples[4].image_feat)


def test_class_features_do_not_depend_on_how_many_are_encoded_together(monkeypatch):
    model = build().eval()
    model.set_classes('digits', 'imagenet')
    assert len(model.class_features.templates) == 81
    whole = model.extract_class_feat()
    assert whole.shape == (10, 8)
    for texts_at_once in (200, 7):
        model.class_features.texts_at_once = texts_at_once
        model.class_features.drop()
        torch.testing.assert_close(model.extract_class_feat(), whole)
    monkeypatch.setattr(class_features_module, '_TEXTS', 300)  # three classes at a time
    model.class_features.drop()
    torch.testing.assert_close(model.extract_class_feat(), whole)
    # by hand, and names that occur twice
    model.set_classes(['seven', 'two', 'seven'], ['a {}.', '{} a', 'the {}'])
    texts = ['a seven.', 'seven a', 'the seven', 'a two.', 'two a', 'the two']
    with torch.no_grad():
        mean = torch.stack([model.extract_text_feat([text])[0] for text in texts]).view(2, 3, -1).mean(1)
    expected = mean / mean.norm(dim=1, keepdim=True)
    torch.testing.assert_close(model.extract_class_feat(), expected[[0, 1, 0]])


def test_class_features_in_another_type():
    model = build().eval()
    exact = model.encode_classes('digits', 'imagenet')
    before = {name: value.clone() for name, value in model.state_dict().items()}
    half = model.encode_classes('digits', 'imagenet', torch.bfloat16)
    assert half.dtype == torch.float32 and not torch.equal(half, exact)
    torch.testing.assert_close(half.norm(dim=1), torch.ones(10))
    assert (half * exact).sum(1).min() > 0.9995  # of small random weights
    # the same as with a tower of that type, and the model keeps its own
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    other = deepcopy(model)
    other.text_encoder.bfloat16()
    torch.testing.assert_close(other.encode_classes('digits', 'imagenet'), half, rtol=0, atol=1e-6)
    # for prediction too, and anew when weights change
    model.set_classes('digits', 'imagenet', dtype=torch.bfloat16)
    assert torch.equal(model.extract_class_feat(), half) and model.extract_class_feat() is model.extract_class_feat()
    with torch.no_grad():
        model.text_encoder.token_embedding.weight.mul_(-1)
    assert (model.extract_class_feat() * half).sum(1).max() < 0.99
    for wrong in (torch.int8, torch.float8_e4m3fn, 'bfloat16', True):
        for function in (model.set_classes, model.encode_classes):
            with pytest.raises(ValueError, match=f'dtype={wrong!r} of class features is none of torch.bfloat16, '):
                function('digits', dtype=wrong)


def test_classes_of_one_name_are_reported(monkeypatch):
    said = []
    monkeypatch.setattr(class_features_module, 'print_log', lambda message, *_: said.append(message))
    model = build()
    model.set_classes(['dog', 'cat', 'dog'], TEMPLATES)
    assert model.extract_class_feat().shape == (3, 8)
    assert said == ["class names ['dog'] occur more than once; prediction cannot tell such classes apart"]
    model.set_classes('imagenet1k')  # has such names
    assert len(model.class_features.names) == 1000
    assert len(said) == 1


class Changes:
    """Ways in which weights come to differ. Each gets the model and a copy of other weights."""

    def optimizer_step(model, _):
        model.train_step(batch(), OptimWrapper(torch.optim.SGD(model.parameters(), 1.0)))

    def load_state_dict(model, other):
        model.load_state_dict(other)

    def load_state_dict_by_assignment(model, other):
        model.load_state_dict(other, assign=True)

    def load_of_the_tower_alone(model, other):
        prefix = 'text_encoder.'
        model.text_encoder.load_state_dict({k[len(prefix) :]: v for k, v in other.items() if k.startswith(prefix)})

    def projection_in_place(model, _):
        with torch.no_grad():
            model.text_projection[0] += 1

    def averaged_weights(model, other):
        # as EMAHook does it, which no version counter sees
        for name, parameter in model.named_parameters():
            parameter.data.copy_(other[name])

    def scaled_past_autograd(model, _):
        model.text_projection.data.mul_(torch.linspace(1, 2, model.text_projection.shape[1]))

    def other_number_format(model, _):
        model.double()


@pytest.mark.parametrize('change', [k for k in vars(Changes) if not k.startswith('_')])
def test_class_features_follow_the_weights(change):
    torch.manual_seed(7)
    other = {k: v + 0.1 * torch.randn_like(v) for k, v in build().state_dict().items()}
    model = build().eval()
    model.set_classes(CLASSES, TEMPLATES)
    calls = []
    model.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    before = model.extract_class_feat()
    assert model.extract_class_feat() is before
    assert len(calls) == 1
    getattr(Changes, change)(model, other)
    after = model.extract_class_feat()
    fresh = deepcopy(model)
    fresh.set_classes(CLASSES, TEMPLATES)
    torch.testing.assert_close(after, fresh.extract_class_feat(), rtol=0, atol=0)
    if change == 'other_number_format':
        assert after.dtype == torch.float64
    else:
        assert (after - before).abs().max() > 1e-4


def test_features_of_training_are_not_kept_for_prediction():
    model = build().train()
    model.set_classes(CLASSES, TEMPLATES)
    dropout = nn.Dropout(0.5)
    model.text_encoder.register_forward_hook(lambda module, _, out: dropout.train(module.training)(out))
    noisy = model.extract_class_feat()
    fresh = build().eval()
    fresh.set_classes(CLASSES, TEMPLATES)
    assert torch.equal(model.eval().extract_class_feat(), fresh.extract_class_feat())
    assert not torch.equal(noisy, fresh.extract_class_feat())


def test_cache_is_dropped_without_a_call_of_eval():
    model = build().eval()
    model.set_classes(CLASSES, TEMPLATES)
    before = model.extract_class_feat()
    with torch.no_grad():
        model.text_encoder.ln_final.weight.mul_(-1)
    assert (model.extract_class_feat() - before).abs().max() > 1e-3


@pytest.mark.parametrize('micro_batch', [1, 3, 8, 100])
def test_gradient_cache_gives_the_same_gradient(micro_batch):
    expected = gradients(build().double(), batch())
    model = build(micro_batch=micro_batch).double()
    got = gradients(model, batch())
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-12, msg=name)
    # each part forward, and again in the backward pass
    assert model.image_encoder.calls == 2 * math.ceil(8 / micro_batch)


@pytest.mark.parametrize('micro_batch', [None, 2])
def test_equal_texts_are_encoded_once(monkeypatch, micro_batch):
    expected = build().double()
    # each text alone, as long as its pairs
    monkeypatch.setattr(
        expected, 'training_text_feat', lambda texts: torch.cat([expected.extract_text_feat([text]) for text in texts])
    )
    expected = gradients(expected, batch())
    model, encoded = build(micro_batch=micro_batch).double(), []
    model.text_encoder.register_forward_pre_hook(lambda _, args: encoded.append(len(args[0])))
    got = gradients(model, batch())
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-12, msg=name)
    # of eight texts two are equal; letters and blanks that the tokenizer would make equal do not count
    assert sum(encoded) == (7 if micro_batch is None else 2 * 7)  # and again in the backward pass


@pytest.mark.parametrize(('micro_batch', 'sizes'), [(None, [1]), (2, [2, 2])])
def test_all_processes_encode_as_many_parts(monkeypatch, micro_batch, sizes):
    model, encoded = build(micro_batch=micro_batch), []
    model.text_encoder.register_forward_pre_hook(lambda _, args: encoded.append(len(args[0])))
    monkeypatch.setattr(dist, 'is_initialized', lambda: True)
    monkeypatch.setattr(dist, 'get_world_size', lambda group=None: 2)
    monkeypatch.setattr(dist, 'get_rank', lambda group=None: 0)
    model.training_text_feat(['one'] * 4)  # while the other may have four different ones
    assert encoded == sizes


@pytest.mark.parametrize('layer', [nn.Dropout(0.5), nn.MultiheadAttention(16, 2, dropout=0.1), DropPath(0.1)])
def test_equal_texts_differ_by_dropout(layer):
    model, encoded = build(), []
    model.text_encoder.register_forward_pre_hook(lambda _, args: encoded.append(len(args[0])))
    model.text_encoder.drop = layer
    model.training_text_feat(['one', 'one'])
    model.eval().training_text_feat(['one', 'one'])
    assert encoded == [2, 1]


@pytest.mark.parametrize('bf16', [False, True])
def test_gradient_cache_replays_dropout(monkeypatch, bf16):
    def run(check):
        model = build(drop=0.5, micro_batch=3)
        monkeypatch.setattr(unicl_module, 'checkpoint', check)
        torch.manual_seed(11)
        with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
            return gradients(model, batch()), torch.rand(())

    cached, after_cached = run(torch.utils.checkpoint.checkpoint)
    kept, after_kept = run(lambda encode, *args, use_reentrant: encode(*args))
    for name, value in kept.items():
        torch.testing.assert_close(cached[name], value, msg=name)
    assert torch.equal(after_cached, after_kept)  # the replay leaves the random numbers where they were


def test_gradient_cache_holds_fewer_activations():
    def kept_bytes(micro_batch):
        model, sizes = build(micro_batch=micro_batch), []
        data = preprocessed(model)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.nbytes) or x, lambda x: x):
            model(**data, mode='loss')
        return sum(sizes)

    assert kept_bytes(2) < 0.5 * kept_bytes(None)


def test_two_processes_have_the_gradient_of_one(two_processes, tmp_path):
    two_processes(lambda: worker['work'](tmp_path / 'out'))
    expected = gradients(build().double(), batch())
    own = gradients(build(positives='own_text').double(), batch())
    weights = worker['weights_after_a_step'](build().double(), batch(), {'type': 'AdamW'})
    for rank in range(2):
        result = torch.load(tmp_path / f'out.{rank}', weights_only=True)
        for micro in ('None', '3'):
            for name, value in expected.items():
                torch.testing.assert_close(
                    result[micro][name], value, rtol=1e-9, atol=1e-12, msg=f'{name}, micro_batch {micro}'
                )
        for name, value in own.items():
            torch.testing.assert_close(result['own_text'][name], value, rtol=1e-9, atol=1e-12, msg=f'{name}, own_text')
        # ZeRO: each process holds the optimizer's state of some parameters
        for name, value in weights.items():
            torch.testing.assert_close(result['zero'][name], value, rtol=1e-6, atol=1e-6, msg=name)


def test_bf16_step_is_close_to_fp32():
    exact, rounded = build(), build()
    sgd = [torch.optim.SGD(model.parameters(), 0.1) for model in (exact, rounded)]
    log = exact.train_step(batch(), OptimWrapper(sgd[0]))
    log_bf16 = rounded.train_step(batch(), FlorenceAmpOptimWrapper(optimizer=sgd[1]))
    assert log_bf16['loss'].item() == pytest.approx(log['loss'].item(), rel=0.02)
    start = build().state_dict()
    step, step_bf16 = (
        torch.cat([(model.state_dict()[k] - v).flatten() for k, v in start.items()]) for model in (exact, rounded)
    )
    assert F.cosine_similarity(step, step_bf16, dim=0) > 0.98


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_trains_with_coswin_from_a_config(seed):
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')  # a scope that has none of these names
    torch.manual_seed(seed)
    model = MODELS.build(
        {
            'type': 'UniCL',
            'image_encoder': {'type': 'CoSwin', 'arch': 'micro', 'img_size': 32, 'out_indices': (2,)},
            'text_encoder': {'type': 'CLIPTextTower', 'arch': 'micro', 'vocab_size': 2000},
            'tokenizer': {'type': 'CLIPTokenizer', 'vocab_size': 2000},
            'embed_dims': 16,
            'classes': worker['TEXTS'][:2],
            'templates': 'none',
        }
    )
    data = batch(worker['TEXTS'][:2] * 2)
    pictures = torch.randint(0, 256, (2, 3, 32, 32)).byte()
    data['inputs'] = [pictures[i] for i in (0, 1, 0, 1)]
    optimizer = OptimWrapper(torch.optim.AdamW(model.parameters(), 3e-3))
    for _ in range(12):
        model.train_step(data, optimizer)
    model.eval()
    samples = model.val_step(data)
    assert [int(sample.pred_label) for sample in samples] == [0, 1, 0, 1]
    assert all(sample.pred_score.max() > 0.9 for sample in samples)  # 0.99


def test_preprocessor_values_and_errors():
    preprocessor = ImageTextDataPreprocessor()
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    image[0] = 255
    out = preprocessor({'inputs': [image, image]})
    assert out['inputs'].shape == (2, 3, 2, 2)
    assert out['data_samples'] is None
    # (255 - 123.675) / 58.395, (0 - 116.28) / 57.12, (0 - 103.53) / 57.375
    torch.testing.assert_close(out['inputs'][1, :, 0, 0], torch.tensor([2.2489083, -2.0357144, -1.8044444]))
    torch.testing.assert_close(preprocessor({'inputs': torch.stack([image] * 2)})['inputs'], out['inputs'])
    with pytest.raises(ValueError, match=r'have the shapes \[\(3, 2, 2\), \(3, 4, 2\)\]'):
        preprocessor({'inputs': [image, torch.zeros(3, 4, 2)]})
    with pytest.raises(ValueError, match=r'shape \(1, 1, 2, 2\); expected \(B, 3, H, W\)'):
        preprocessor({'inputs': [image[:1]]})


def test_errors_say_what_to_do():
    model = build()
    data = preprocessed(model)
    with pytest.raises(ValueError, match='Identity has no num_features, the width of what it returns; UniCL needs it'):
        UniCL(torch.nn.Identity(), torch.nn.Identity(), torch.nn.Identity())
    with pytest.raises(ValueError, match='call set_classes'):
        model.extract_class_feat()
    with pytest.raises(ValueError, match="mode is 'train'"):
        model(**data, mode='train')
    with pytest.raises(ValueError, match='without data_samples'):
        model(data['inputs'], None, 'loss')
    del data['data_samples'][2].label_key
    with pytest.raises(ValueError, match="sample 2 of the batch has no 'label_key'"):
        model(**data, mode='loss')
    with pytest.raises(ValueError, match='no class names were given'):
        model.set_classes([])
    with pytest.raises(ValueError, match='micro_batch is 0'):
        build(micro_batch=0)
    tower = CLIPTextTower('micro', vocab_size=600)
    with pytest.raises(ValueError, match='there are 700 ids in the tokenizer and vocab_size of .* is 600'):
        UniCL(worker['ToyEncoder'](), tower, CLIPTokenizer(vocab_size=700))
