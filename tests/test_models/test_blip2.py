"""BLIP-2: what is frozen, shared and left out of checkpoints, and batches of one."""

import pytest
import torch
from instances import build
from mmpretrain.structures import DataSample
from whole_kinds import total

from florence_mm.models.checkpoints.frozen import SAMPLES, frozen_samples, with_frozen, without_frozen
from florence_mm.models.heads.multimodal.cuts import draw_cuts
from florence_mm.ops.nearest_contrastive import nearest_contrastive_loss

STAGE_1 = {
    'itc': {'type': 'FusionITCHead', 'embed_dims': 8, 'label_smoothing': 0.1, 'positives': 'equal_images'},
    'itm': {'type': 'FusionITMHead', 'negatives': 'all'},
    'caption': {'type': 'FusionCaptionHead', 'tied': True, 'label_smoothing': 0.1, 'max_length': 5},
}
TEXTS = ['a red two', 'no dog', 'by it']


def samples(count=3, ids=(1, 2, 3)):
    return [DataSample(text=TEXTS[row], img_id=ids[row]) for row in range(count)]


def images(count=3):
    return torch.randn(count, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_a_batch_of_one_pair_learns_without_a_process_group():
    model = build('BLIP2', heads=STAGE_1).train()
    losses = model.loss(images(1), samples(1))
    assert losses['loss_itc'] == 0 or abs(float(losses['loss_itc'])) < 1e-12  # one pair is its own only choice
    total(losses).backward()
    assert model.qformer.query_tokens.grad.any()
    # matching is that of the true pair
    batch = model.eval().make_batch(images(1), samples(1))
    expected = -model.heads['itm'](batch.fused.pooled).log_softmax(1)[0, 1]
    torch.testing.assert_close(model.loss(images(1), samples(1))['loss_itm'].double(), expected.double())


def test_pairs_of_one_image_are_no_negatives_and_share_their_targets():
    model = build('BLIP2', heads=STAGE_1)
    with pytest.raises(ValueError, match='the 3 pairs of the batch have no negatives'):
        model.loss(images(), samples(ids=(1, 1, 1)))
    features = [torch.nn.functional.normalize(torch.randn(3, *size), dim=-1) for size in ((2, 4), (4,))]
    scale = torch.tensor(5.0)
    i2t, t2i = nearest_contrastive_loss(*features, torch.tensor([7, 8, 7]), scale, 0.1)
    logits = torch.einsum('iqd,td->iqt', *features).amax(1) * scale
    targets = torch.tensor([[0.45, 0, 0.45], [0, 0.9, 0], [0.45, 0, 0.45]]) + 0.1 / 3
    torch.testing.assert_close(i2t, -(targets * logits.log_softmax(1)).sum(1).mean())
    torch.testing.assert_close(t2i, -(targets * logits.T.log_softmax(1)).sum(1).mean())


def test_contrast_and_captions_share_what_the_queries_read(monkeypatch):
    model, calls = build('BLIP2', heads=STAGE_1), []
    read = model.qformer.read
    monkeypatch.setattr(model.qformer, 'read', lambda tokens: calls.append(tokens) or read(tokens))
    together = model.loss(images(), samples())
    assert len(calls) == 1
    alone = model.heads['caption'].loss(model.make_batch(images(), samples()))
    assert len(calls) == 2
    torch.testing.assert_close(together['loss_caption'], alone['loss_caption'])
    assert model._queries_of is None


@torch.no_grad()
def test_what_queries_read_of_some_images_is_not_taken_for_that_of_others():
    model = build('BLIP2', heads=STAGE_1)
    tokens = model.encode_image(images())
    with model._sharing():
        read = [model.read_queries(some)[0] for some in (tokens, tokens[:2], tokens.flip(0))]
    expected = model.read_queries(tokens)[0]
    for got, rows in zip(read, ([0, 1, 2], [0, 1], [2, 1, 0]), strict=True):
        torch.testing.assert_close(got, expected[rows])
    assert model._queries_of is None


@pytest.mark.parametrize('name', ['BLIP2', 'BLIP2Writer', 'BLIP2Writer-t5'])
def test_what_is_frozen_stays_equal_bit_by_bit(name):
    heads = STAGE_1 if name == 'BLIP2' else {'caption': {'type': 'FusionCaptionHead', 'max_length': 5}}
    model = build(name, heads=heads).train()
    frozen = model.frozen_parts()
    assert frozen == ('image_encoder',) if name == 'BLIP2' else ('image_encoder', 'language_model')
    assert not any(part.training for name in frozen for part in getattr(model, name).modules())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        total(model.loss(images(), samples())).backward()
        optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and not any(key.startswith(frozen) for key in changed)
    assert 'ln_vision.weight' in changed and any(key.startswith('qformer.') for key in changed)


def test_checkpoints_hold_what_was_trained_and_say_what_they_need(tmp_path):
    model = build('BLIP2Writer', heads={'caption': {'type': 'FusionCaptionHead', 'max_length': 5}})
    state = without_frozen(model, model.state_dict())
    parts = {key.split('.')[0] for key in state}
    assert parts == {'ln_vision', 'qformer', 'language_projection'}
    with pytest.raises(
        ValueError, match=r'run.pth holds what was trained alone and lacks the \d+ tensors of image_encoder, which was '
    ):
        with_frozen(model, state, 'run.pth')
    file = tmp_path / 'tower.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {'mmengine_version': '0.10'}}, file)
    for name in ('image_encoder', 'language_model'):
        pretrained = {'type': 'florence_mm.Pretrained', 'checkpoint': str(file), 'prefix': f'{name}.'}
        getattr(model, name).init_cfg = pretrained
    whole = with_frozen(model, state, 'run.pth')
    assert whole.keys() == model.state_dict().keys()
    assert all(torch.equal(value, whole[key]) for key, value in model.state_dict().items())
    model.keep_frozen = True
    assert without_frozen(model, model.state_dict()).keys() == model.state_dict().keys()


def _with_weights(model):
    for name in ('image_encoder', 'language_model'):
        getattr(model, name).has_weights = True
    return model


def test_other_frozen_weights_than_those_of_the_training_are_refused():
    model = _with_weights(build('BLIP2Writer', heads={'caption': {'type': 'FusionCaptionHead', 'max_length': 5}}))
    samples = frozen_samples(model, model.state_dict())
    assert samples.keys() == {'image_encoder', 'language_model'}
    for name, numbers in samples.items():
        own = getattr(model, name).state_dict()
        assert 1 <= len(numbers) <= 16
        for key, (size, *values) in numbers.items():
            assert size == own[key].numel() and len(values) == 4
            assert set(values) <= set(own[key].flatten().tolist())
    meta, state = {SAMPLES: samples}, without_frozen(model, model.state_dict())
    assert with_frozen(model, state, 'run.pth', meta).keys() == model.state_dict().keys()
    # in a narrower type they are the same
    model.language_model.to(torch.bfloat16)
    with_frozen(model, state, 'run.pth', meta)
    with torch.no_grad():
        model.language_model.to(torch.float32)
        for weight in model.language_model.parameters():
            weight.mul_(1.1)
    with pytest.raises(
        ValueError,
        match=r'run.pth was trained with another language_model: \d+ of the \d+ tensors that it knows differ',
    ):
        with_frozen(model, state, 'run.pth', meta)
    with_frozen(model, state, 'run.pth')  # of an older run, which knows nothing


def test_a_text_is_cut_up_to_its_middle():
    mask = torch.ones(4000, 9, dtype=torch.bool)  # seven words
    cuts = draw_cuts(mask, torch.Generator().manual_seed(0), half=True)
    counts = cuts.bincount(minlength=4)
    assert counts[0] == 0 and len(counts) == 4 and (counts[1:] > 1200).all()
    assert draw_cuts(mask[:5, :3], half=True).tolist() == [0] * 5
