import math
import runpy
from collections import Counter
from pathlib import Path

import pytest
import torch

from florence_mm.models.heads.multimodal import FusionITMHead, FusionMLMHead, FusionVQAHead
from florence_mm.models.heads.multimodal.mlm import mask_tokens
from florence_mm.models.multimodal.batch import FusionBatch
from florence_mm.models.tokenizers import MaskedCLIPTokenizer, TokenBatch

worker = runpy.run_path(str(Path(__file__).parent / 'meter_worker.py'))
build, batch, preprocessed, pictures = (worker[name] for name in ('build', 'batch', 'preprocessed', 'pictures'))
QUESTIONS = worker['QUESTIONS']
tiny_meter = runpy.run_path(str(Path(__file__).parent / 'tiny_meter.py'))['tiny_meter']


def fusion_batch(model, texts=QUESTIONS, inputs=None):
    data = preprocessed(model, batch(texts, inputs))
    return FusionBatch(model, **{'inputs': data['inputs'], 'samples': data['data_samples']})


# --- questions ------------------------------------------------------------------------------------------------------


def with_logits(model, logits):
    """A batch whose VQA head says ``logits``."""
    model.heads['vqa'].forward = lambda pooled: torch.tensor(logits, dtype=torch.float32)
    return fusion_batch(model, QUESTIONS[: len(logits)])


def test_answers_by_hand():
    model = build(('vqa',))
    # ln 3 is a probability of 3/4
    made = with_logits(model, [[math.log(3), 0, 0, 0, 0], [0, 0, 0, -math.log(3), 0]])
    # sample 0 has the answers 0 (1.0) and 2 (0.3), sample 1 has 1 (1.0) and 3 (0.3)
    losses = model.heads['vqa'].loss(made)
    first = -math.log(0.75) + 4 * math.log(2)
    second = 4 * math.log(2) - 0.3 * math.log(0.25) - 0.7 * math.log(0.75)
    assert losses['loss_vqa'].item() == pytest.approx((first + second) / 2, rel=1e-6)
    # the first answer chosen is worth 1; the second's logits tie at 0, and the first of them is worth nothing
    assert losses['acc_vqa'].item() == pytest.approx(0.5)


def test_dense_and_sparse_scores_are_one():
    model = build(('vqa',))
    sparse = model.heads['vqa'].loss(fusion_batch(model))['loss_vqa']
    made = fusion_batch(model)
    for i, sample in enumerate(made.samples):
        sample.gt_score = torch.zeros(5)
        sample.gt_score[i % 5], sample.gt_score[(i + 2) % 5] = 1.0, 0.3
        del sample.answer_labels, sample.answer_scores
    dense = model.heads['vqa'].loss(made)['loss_vqa']
    torch.testing.assert_close(dense, sparse)
    # METER's way of writing it
    target = torch.stack([sample.gt_score for sample in made.samples])
    logits = model.heads['vqa'](made.fused.pooled)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, target) * 5
    torch.testing.assert_close(dense, expected)


def test_a_question_without_known_answers_teaches_that_none_is_right():
    model = build(('vqa',))
    made = with_logits(model, [[0.0] * 5])
    made.samples[0].answer_labels, made.samples[0].answer_scores = torch.tensor([], dtype=torch.int64), torch.tensor([])
    assert model.heads['vqa'].loss(made)['loss_vqa'].item() == pytest.approx(5 * math.log(2))


def test_one_answer_in_k_is_expected_before_training():
    for number in (1, 2, 3129):
        head = FusionVQAHead(number, hidden_size=4)
        assert head.classifier[-1].bias.sigmoid().sum().item() == pytest.approx(1 if number > 1 else 0.5, rel=1e-4)


def test_predicted_answers():
    model = build(('vqa',)).eval()
    made = with_logits(model, [[0, 1, 2, 3, math.log(3) + 3], [9, 0, 0, 0, 0]])
    with torch.no_grad():
        model.heads['vqa'].predict(made)
    assert [sample.pred_answer for sample in made.samples] == ['blue', 'two']
    torch.testing.assert_close(made.samples[0].pred_scores[:2], torch.tensor([0.5, 1 / (1 + math.exp(-1))]))
    nameless = build({'vqa': {'type': 'FusionVQAHead', 'num_answers': 5}}).eval()
    made = with_logits(nameless, [[0, 1, 2, 3, 4]])
    with torch.no_grad():
        nameless.heads['vqa'].predict(made)
    assert made.samples[0].pred_label.tolist() == [4]
    assert 'pred_answer' not in made.samples[0]


def test_answers_from_a_file(tmp_path):
    (tmp_path / 'answers.txt').write_text('yes\nno\n\ntwo\n')
    head = FusionVQAHead(answers=str(tmp_path / 'answers.txt'), hidden_size=4)
    assert (head.answers, head.num_answers) == (['yes', 'no', 'two'], 3)


def test_targets_of_labels_and_of_whole_scores_in_one_batch():
    model = build(('vqa',))
    made = fusion_batch(model)
    expected = torch.zeros(len(made.samples), 5)
    for place, sample in enumerate(made.samples):
        del sample.answer_labels, sample.answer_scores
        if place % 2:
            sample.answer_labels, sample.answer_scores = torch.tensor([4, place]), torch.tensor([0.3, 0.1 * place])
            expected[place, 4], expected[place, place] = 0.3, 0.1 * place
        else:
            sample.gt_score = expected[place] = torch.arange(5) / 10 + place
    assert model.heads['vqa'].soft_targets(made.samples).equal(expected) and len(made.samples) > 2


def test_refused_answers(tmp_path):
    model = build(('vqa',))
    made = fusion_batch(model)
    made.samples[2].answer_labels = torch.tensor([1, 5])
    with pytest.raises(
        ValueError, match=r'sample 2 of the batch \(question_id 12\) has the answer label 5, but the VQA'
    ):
        model.heads['vqa'].loss(made)
    made.samples[2].answer_labels = torch.tensor([-1, 3])
    with pytest.raises(ValueError, match='has the answer label -1, but the VQA head has 5 answers'):
        model.heads['vqa'].loss(made)
    # too many here and too few there would add up
    labels, scores = made.samples[0].answer_labels, made.samples[0].answer_scores
    made.samples[2].answer_labels, made.samples[2].answer_scores = torch.tensor([1]), torch.ones(2)
    made.samples[0].answer_labels, made.samples[0].answer_scores = torch.tensor([1, 2]), torch.ones(1)
    with pytest.raises(ValueError, match='sample 0 .* has 2 answer_labels and 1 answer_scores; expected as many'):
        model.heads['vqa'].loss(made)
    made.samples[0].answer_labels, made.samples[0].answer_scores = labels, scores
    del made.samples[2].answer_labels
    with pytest.raises(ValueError, match='has neither answer_labels nor gt_score'):
        model.heads['vqa'].loss(made)
    made.samples[2].gt_score = torch.zeros(6)
    with pytest.raises(ValueError, match=r'gt_score of shape \(6,\), but the VQA head has 5'):
        model.heads['vqa'].loss(made)
    with pytest.raises(ValueError, match='neither num_answers nor answers'):
        FusionVQAHead()
    with pytest.raises(ValueError, match='num_answers is 3 and there are 2 answers'):
        FusionVQAHead(3, ['a', 'b'])
    with pytest.raises(FileNotFoundError, match='no vocabulary of answers'):
        FusionVQAHead(answers=str(tmp_path / 'absent.txt'))


# --- matching -------------------------------------------------------------------------------------------------------


def test_half_of_the_texts_get_a_false_picture():
    model = build(('itm',))
    head = model.heads['itm']
    # pictures 0, 1, 2, 0; the texts of 1 and 2 are equal after normalisation
    made = fusion_batch(model, ['a dog', 'two cats', 'Two  cats.', 'a red ball'], pictures(3)[[0, 1, 2, 0]])
    drawn, false = Counter(), Counter()
    for seed in range(300):
        torch.manual_seed(seed)
        image_of, matches = head.sample_negatives(made)
        assert matches.count(False) == 2
        for text, (picture, match) in enumerate(zip(image_of, matches, strict=True)):
            assert match == (picture == made.image_of[text])
            if not match:
                drawn[text, picture] += 1
                false[text] += 1
    # never one that an equal text describes: 1 and 2 only get 0; the others all but their own, equally often
    assert set(drawn) == {(0, 1), (0, 2), (1, 0), (2, 0), (3, 1), (3, 2)}
    assert all(110 < false[text] < 190 for text in range(4))
    assert 0.3 < drawn[0, 1] / false[0] < 0.7
    torch.manual_seed(7)
    again = head.sample_negatives(made)
    torch.manual_seed(7)
    assert head.sample_negatives(made) == again
    assert not all(again[1])


def test_matching_loss_by_hand(monkeypatch):
    model = build(('itm',))
    head = model.heads['itm']
    made = fusion_batch(model)
    monkeypatch.setattr(head, 'sample_negatives', lambda _: ([0, 3, 2, 1], [True, False, True, False]))
    losses = head.loss(made)
    fused = model.fuse(made.text_tokens, made.tokens.mask, made.image_tokens[[0, 3, 2, 1]])
    logits = head.fc(fused.pooled)
    rows = logits.log_softmax(1)
    torch.testing.assert_close(losses['loss_itm'], -(rows[0, 1] + rows[1, 0] + rows[2, 1] + rows[3, 0]) / 4)
    right = [int(logits[i].argmax()) == want for i, want in enumerate((1, 0, 1, 0))]
    assert losses['acc_itm'].item() == pytest.approx(sum(right) / 4)
    torch.testing.assert_close(head.match_score(fused), rows.exp()[:, 1])
    assert made.model.image_encoder.seen == [4]  # false pictures are not encoded again


def unicl(logit_scale=2.0):
    torch.manual_seed(1)
    return {
        'image_encoder': worker['ToyEncoder'](),
        'text_encoder': {
            'type': 'CLIPTextTower',
            'arch': {'embed_dims': 16, 'num_layers': 1, 'num_heads': 2},
            'vocab_size': 600,
        },
        'tokenizer': {'type': 'CLIPTokenizer', 'vocab_size': 600},
        'embed_dims': 8,
        'logit_scale_init': logit_scale,
    }


def test_hard_negatives_follow_the_similarity():
    heads = {'itm': {'type': 'FusionITMHead', 'hard_negatives': unicl()}}
    model = build(heads)
    head, made = model.heads['itm'], fusion_batch(model)
    with torch.no_grad():
        similarity = head.similarity.extract_text_feat(QUESTIONS) @ head.similarity.extract_image_feat(made.images).T
    expected = (math.exp(2.0) * similarity).masked_fill(torch.eye(4).bool(), -torch.inf).softmax(1)
    drawn = torch.zeros(4, 4)
    for seed in range(600):
        torch.manual_seed(seed)
        image_of, matches = head.sample_negatives(made)
        for text in range(4):
            drawn[text, image_of[text]] += not matches[text]
    torch.testing.assert_close(drawn / drawn.sum(1, keepdim=True), expected, atol=0.09, rtol=0)
    assert expected.std() > 0.15  # far from all alike
    # at a high temperature factor it is always the nearest
    model = build({'itm': {'type': 'FusionITMHead', 'hard_negatives': unicl(math.log(1e5))}})
    head, made = model.heads['itm'], fusion_batch(model)
    nearest = similarity.masked_fill(torch.eye(4).bool(), -torch.inf).argmax(1)
    image_of, matches = head.sample_negatives(made)
    assert [p for p, match in zip(image_of, matches, strict=True) if not match] == [
        int(nearest[i]) for i, match in enumerate(matches) if not match
    ]


def test_the_model_of_hard_negatives_does_not_learn():
    model = build({'itm': {'type': 'FusionITMHead', 'hard_negatives': unicl()}}).train()
    similarity = model.heads['itm'].similarity
    assert not similarity.training
    assert not any(p.requires_grad for p in similarity.parameters())
    model(**preprocessed(model), mode='loss')['loss_itm'].backward()
    assert all(p.grad is None for p in similarity.parameters())


def test_matching_needs_two_pictures_and_two_texts():
    model = build(('itm',))
    for texts, inputs in (
        (QUESTIONS[:2], pictures(1)[[0, 0]]),
        (['a dog', 'A dog.'], pictures(2)),
        (QUESTIONS[:1], None),
    ):
        with pytest.raises(ValueError, match='have no negatives'):
            model.heads['itm'].loss(fusion_batch(model, texts, inputs))


# --- masked words ---------------------------------------------------------------------------------------------------


def test_masking_follows_berts_rule_and_the_seed():
    tokenizer = MaskedCLIPTokenizer(vocab_size=600)
    tokens = tokenizer(['the dogs sat on a mat and the cats on chairs'] * 2000 + ['one'], 50)
    torch.manual_seed(0)
    hidden, chosen = mask_tokens(tokens, tokenizer)
    special = torch.isin(tokens.input_ids, torch.tensor(sorted(tokenizer.special_ids)))
    ordinary = tokens.mask & ~special
    assert not (chosen & ~ordinary).any()
    assert torch.equal(hidden.input_ids[~chosen], tokens.input_ids[~chosen])
    assert torch.equal(hidden.mask, tokens.mask)
    count = int(ordinary.sum())
    assert int(chosen.sum()) / count == pytest.approx(0.15, abs=4 * (0.15 * 0.85 / count) ** 0.5)
    now, before = hidden.input_ids[chosen], tokens.input_ids[chosen]
    masked, same = (now == tokenizer.mask_token_id).float().mean(), (now == before).float().mean()
    spread = 4 * (0.8 * 0.2 / len(now)) ** 0.5
    assert masked.item() == pytest.approx(0.8, abs=spread)
    assert same.item() == pytest.approx(0.1 + 0.1 / 598, abs=spread)
    others = now[(now != tokenizer.mask_token_id) & (now != before)]
    assert len(others.unique()) > 0.5 * len(others)
    assert not torch.isin(others, torch.tensor(sorted(tokenizer.special_ids))).any()
    torch.manual_seed(0)
    again, chosen_again = mask_tokens(tokens, tokenizer)
    assert torch.equal(again.input_ids, hidden.input_ids) and torch.equal(chosen_again, chosen)


def test_whole_words_are_chosen():
    tokenizer = MaskedCLIPTokenizer(vocab_size=600)
    tokens = tokenizer(['extraordinary giraffes sleep'] * 500, 50)
    starts = tokenizer.word_starts(tokens.input_ids)[0].tolist()
    # start, three words, end
    words = [i for i, begins in enumerate(starts) if begins]
    assert len(words) == 5
    torch.manual_seed(0)
    _, chosen = mask_tokens(tokens, tokenizer, 0.3, whole_word=True)
    for begin, end in zip(words[1:-1], words[2:], strict=True):
        assert end - begin > 1  # several tokens, else this shows nothing
        assert torch.equal(chosen[:, begin:end].any(1), chosen[:, begin:end].all(1))
        assert chosen[:, begin].float().mean().item() == pytest.approx(0.3, abs=0.1)
    assert not chosen[:, [0, words[-1]]].any()
    _, single = mask_tokens(tokens, tokenizer, 0.3)
    assert not torch.equal(single[:, 1 : words[2]].any(1), single[:, 1 : words[2]].all(1))


def test_masked_word_loss_is_over_hidden_tokens():
    model = build(('mlm',))
    made = fusion_batch(model)
    torch.manual_seed(0)
    losses = model.heads['mlm'].loss(made)
    torch.manual_seed(0)
    hidden, chosen = mask_tokens(made.tokens, model.tokenizer, 0.5)
    fused = model.fuse(model.encode_tokens(hidden), hidden.mask, made.image_tokens)
    # as METER computes it: all logits, and -100 where nothing is to be predicted
    logits = model.heads['mlm'](fused.text)
    target = made.tokens.input_ids.masked_fill(~chosen, -100)
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), target)
    torch.testing.assert_close(losses['loss_mlm'], expected)
    right = (logits.argmax(2) == target)[chosen].float().mean()
    torch.testing.assert_close(losses['acc_mlm'], right)


def test_a_batch_in_which_nothing_is_hidden(monkeypatch):
    model = build(('mlm',))
    model.heads['mlm'].probability = 1e-9
    losses = model(**preprocessed(model), mode='loss')
    losses['loss_mlm'].backward()
    assert losses['loss_mlm'].item() == 0
    assert not model.heads['mlm'].decoder.weight.grad.any()


def test_masked_words_are_filled_in():
    model = build(('mlm',)).eval()
    data = batch(['how many <mask> are there', 'no mask'])
    samples = model.val_step(data)
    assert 'pred_text' not in samples[1]
    made = fusion_batch(model, ['how many <mask> are there', 'no mask'])
    place = made.tokens.input_ids[0].tolist().index(model.tokenizer.mask_token_id)
    with torch.no_grad():
        best = int(model.heads['mlm'](made.fused.text[0, place]).argmax())
    ids = made.tokens.input_ids[0][made.tokens.mask[0]].clone()
    ids[place] = best
    assert samples[0].pred_text == model.tokenizer.decode(ids)
    with pytest.raises(ValueError, match='probability is 0; give more than 0'):
        FusionMLMHead(probability=0)


def test_a_padded_head_fills_in_tokens():
    padded = build({'mlm': {'type': 'FusionMLMHead', 'vocab_size': 640}}).eval()
    head = padded.heads['mlm']
    head.bias.data[620] = 1e3  # likeliest, and no token
    head.bias.data[7] = 1e2
    (sample,) = padded.val_step(batch(['how many <mask>']))
    ids = padded.tokenize(['how many']).input_ids[0].tolist()
    assert sample.pred_text == padded.tokenizer.decode([*ids[:-1], 7, ids[-1]])


def test_labels_are_the_tokens_not_the_masks():
    tokens = TokenBatch(torch.tensor([[598, 5, 6, 599]]), torch.ones(1, 4).bool())
    hidden, chosen = mask_tokens(tokens, MaskedCLIPTokenizer(vocab_size=600), 1.0)
    assert chosen.tolist() == [[False, True, True, False]]
    assert tokens.input_ids.tolist() == [[598, 5, 6, 599]]
    assert hidden.input_ids.tolist() != tokens.input_ids.tolist()


def test_heads_take_the_fusions_sizes():
    assert FusionITMHead(hidden_size=4)(torch.zeros(2, 8)).shape == (2, 2)
    assert FusionMLMHead(hidden_size=4, vocab_size=9)(torch.zeros(3, 4)).shape == (3, 9)


def test_a_head_that_hands_arguments_on_takes_the_fusions_sizes():
    class Extended(FusionVQAHead):
        def __init__(self, extra=1, **kwargs):
            super().__init__(**kwargs)

    model = tiny_meter({'vqa': {'type': Extended, 'num_answers': 3}})
    assert model.heads.vqa.classifier[0].weight.shape == (32, 32)


@pytest.mark.parametrize('head', [None, 'FusionVQAHead', {'num_answers': 3}])
def test_no_config_of_a_head(head):
    with pytest.raises(ValueError, match="the head 'vqa' is .* which has no `type`"):
        tiny_meter({'vqa': head})


def test_one_text_is_no_list_of_texts():
    model = tiny_meter({'vqa': {'type': 'FusionVQAHead', 'num_answers': 3}, 'itm': {'type': 'FusionITMHead'}})
    tokens = model.encode_image(torch.zeros(1, 3, 16, 16)).detach()
    for ask in (model.answer, model.match):
        with pytest.raises(TypeError, match="got one text, 'how many'"):
            ask(tokens, 'how many', [(0, 0)])
