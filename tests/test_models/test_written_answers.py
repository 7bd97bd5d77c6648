import runpy
from pathlib import Path

import pytest
import torch
from mmpretrain.structures import DataSample

from florence_mm.models.multimodal.batch import FusionBatch
from florence_mm.models.tokenizers.protocol import TokenBatch

tiny = runpy.run_path(str(Path(__file__).with_name('tiny_meter.py')))
tiny_meter, pictures = tiny['tiny_meter'], tiny['pictures']
QUESTIONS = ['what colour is it', 'how many', 'is it red']
LIST = ['red', 'two red', 'yes', 'no', 'two blue', 'a nine']


def answerer(head=None, **kwargs):
    head = {'type': 'FusionWrittenAnswerHead', 'max_length': 4, **(head or {})}
    return tiny_meter({'answer': head}, **{'max_text_len': 30, **kwargs})


def samples(*fields, questions=QUESTIONS):
    return [DataSample(text=text, **more) for text, more in zip(questions, fields, strict=True)]


def words(*lists):
    return samples(*({'answers': list(own)} for own in lists))


def ids_of(model, text):
    return model.tokenize([text]).input_ids[0, 1:-1].tolist()


def log_prob(model, image, question, answer):
    """Of an answer after a question, from the beginnings alone."""
    tokenizer, total = model.tokenizer, 0.0
    ids = [tokenizer.start_token_id, *ids_of(model, question)]
    for token in (*ids_of(model, answer), tokenizer.end_token_id):
        rows = torch.tensor([ids])
        state = model.start_writing(model.encode_image(image[None]), [0])
        hidden = model.write_on(TokenBatch(rows, rows >= 0), state)
        total += model.heads.answer(hidden[:, -1]).log_softmax(1)[0, token].item()
        ids.append(token)
    return total


def best_of(model, image, question, listed=LIST):
    """The list by probability."""
    scored = [(log_prob(model, image, question, answer), answer) for answer in listed]
    return sorted(scored, reverse=True)


def asked(model, images, questions=QUESTIONS, image_of=None):
    tokens = model.encode_image(images)
    image_of = range(len(images)) if image_of is None else image_of
    return FusionBatch(model, None, [DataSample(text=text) for text in questions], image_of, tokens)


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('roberta', [False, True])
@torch.no_grad()
def test_each_answer_is_learned_with_its_share(roberta):
    model, images = answerer({'max_length': 5}, roberta=roberta, max_text_len=50).double(), pictures(2).double()
    # "Two" and "2" are one answer, "the" is none
    data = words(['red', 'red', 'two red', 'the'], ['Two', '2', 'two', 'nine'], ['yes'])
    shares = [{'red': 2 / 3, '2 red': 1 / 3}, {'2': 3 / 4, '9': 1 / 4}, {'yes': 1}]
    pairs = zip(images[[0, 1, 0]], QUESTIONS, shares, strict=True)
    expected = sum(
        share * log_prob(model, image, question, answer)
        for image, question, own in pairs
        for answer, share in own.items()
    )
    model.image_encoder.seen = 0
    loss = model.loss(images[[0, 1, 0]], data)['loss_answer']
    assert loss.item() == pytest.approx(-expected / 3, rel=1e-9)
    assert model.image_encoder.seen == 2  # equal pictures are encoded once


@torch.no_grad()
def test_labels_and_scores_name_answers_of_the_list():
    model, images = answerer({'answers': LIST}).double(), pictures(3).double()
    labels = samples(
        {'answer_labels': [0, 2], 'answer_scores': [0.9, 0.3]},
        {'answer_labels': [], 'answer_scores': []},  # counts as no question
        {'answer_labels': [4], 'answer_scores': [0.6]},
    )
    expected = 0.75 * log_prob(model, images[0], QUESTIONS[0], 'red')
    expected += 0.25 * log_prob(model, images[0], QUESTIONS[0], 'yes')
    expected += log_prob(model, images[2], QUESTIONS[2], 'two blue')
    loss = model.loss(images, labels)['loss_answer'].item()
    assert loss == pytest.approx(-expected / 2, rel=1e-6)  # scores are of fp32
    whole = [torch.zeros(6) for _ in range(3)]
    whole[0][0], whole[0][2], whole[2][4] = 0.9, 0.3, 0.6
    dense = samples(*({'gt_score': score} for score in whole))
    assert model.loss(images, dense)['loss_answer'].item() == loss
    # with a list and without labels, the annotators' words count
    free = model.loss(images, words(['red'], ['a nine'], ['green']))['loss_answer'].item()
    pairs = zip(images, QUESTIONS, ['red', '9', 'green'], strict=True)
    assert free == pytest.approx(-sum(log_prob(model, *pair) for pair in pairs) / 3, rel=1e-9)


@torch.no_grad()
def test_smoothing_and_accuracy_by_hand():
    model = answerer({'label_smoothing': 0.1})
    head = model.heads.answer
    torch.nn.init.zeros_(head.decoder.weight)
    (red,), end = ids_of(model, 'red'), model.tokenizer.end_token_id
    head.bias.data[red] = 2.0
    losses = model.loss(pictures(3), words(['red'], ['red'], ['red']))
    log_probs = head.bias.log_softmax(0)
    expected = -(0.9 * log_probs[[red, end]].sum() + 0.2 * log_probs.mean())
    assert losses['loss_answer'].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses['acc_answer'].item() == 0.5


def test_a_batch_without_answers_has_gradients_of_zero():
    model = answerer()
    losses = model.loss(pictures(3), words(['the'], [], ['a']))
    losses['loss_answer'].backward()
    assert losses['loss_answer'].item() == 0
    for name, parameter in (*model.heads.named_parameters(), *model.text_encoder.named_parameters()):
        assert parameter.grad is not None and not parameter.grad.any(), name


@torch.no_grad()
def test_a_question_is_cut_to_what_an_answer_leaves():
    model, images = answerer(max_text_len=12), pictures(1)  # 12 - start - 4 - end: 6 words
    long, cut = 'is it red or two or nine or blue', 'is it red or two or'
    loss = model.loss(images, samples({'answers': ['a red two blue']}, questions=[long]))['loss_answer'].item()
    assert model.tokenizer.num_truncated == 1
    assert loss == pytest.approx(-log_prob(model, images[0], cut, 'red 2 blue'), rel=1e-5)
    (answered,), (again,) = (model.heads.answer.answer(asked(model, images, [text])) for text in (long, cut))
    assert answered == again


@pytest.mark.parametrize('seed', [0, 1])
def test_answers_are_learnt_by_heart_and_said_in_each_way(seed):
    model, images = answerer(seed=seed).train(), pictures(1, seed)
    with torch.no_grad():  # see the captions' test
        for parameter in model.parameters():
            parameter.mul_(0.3 if parameter.ndim > 1 else 1)
    right = ['two blue', 'a nine', 'yes']
    labels = [{'answer_labels': [LIST.index(answer)], 'answer_scores': [1.0]} for answer in right]
    model.heads.answer.take_answers(LIST)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        loss = model.loss(images.expand(3, -1, -1, -1), samples(*labels))['loss_answer']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for head in ({}, {'answers': LIST, 'restrict': True}, {'answers': LIST, 'rank': 2}):
        other = answerer(head)
        other.load_state_dict(model.state_dict())
        said = other.predict(images.expand(3, -1, -1, -1), samples({}, {}, {}))
        assert [sample.pred_answer for sample in said] == right
        assert min(sample.answer_score for sample in said) > 0.8


# --- prediction -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_free_answers_are_what_a_caption_head_writes_after_the_question():
    model = answerer({'min_length': 1})
    plain = tiny_meter({'caption': {'type': 'FusionCaptionHead', 'max_length': 4, 'min_length': 1}}, max_text_len=30)
    plain.heads.caption.load_state_dict(model.heads.answer.state_dict())
    batch = asked(model, pictures(3))
    answered = model.heads.answer.answer(batch, top=3)
    written = plain.heads.caption.decode(plain, batch.image_tokens, QUESTIONS)
    assert [one.answers for one in answered] == [[model.tokenizer.decode(ids)] for ids in written.ids]
    assert [one.scores[0] for one in answered] == pytest.approx(written.log_probs.exp().tolist(), rel=1e-4)
    assert len({one.answers[0] for one in answered}) > 1 and model.answer_names() == []


@torch.no_grad()
def test_the_best_of_a_list_by_rank_and_by_beams_within_it():
    images = pictures(3)
    ranked = answerer({'answers': LIST, 'rank': 6}).double()
    within = answerer({'answers': LIST, 'restrict': True, 'num_beams': 8, 'length_penalty': 0.0}).double()
    found = [model.heads.answer.answer(asked(model, images.double()), top=3) for model in (ranked, within)]
    assert ranked.answer_names() == within.answer_names() == LIST
    for number, (image, question) in enumerate(zip(images.double(), QUESTIONS, strict=True)):
        best = best_of(ranked, image, question)
        assert found[0][number].answers == [answer for _, answer in best[:3]]
        scores = [torch.tensor(score).exp().item() for score, _ in best[:3]]
        assert found[0][number].scores == pytest.approx(scores, rel=1e-5)
        assert found[1][number].answers == [best[0][1]]
        assert found[1][number].scores == pytest.approx(scores[:1], rel=1e-5)
    # greedy search stays in the list, whatever is likelier
    greedy = answerer({'answers': LIST, 'restrict': True})
    assert {one.answers[0] for one in greedy.heads.answer.answer(asked(greedy, images))} <= set(LIST)


@torch.no_grad()
def test_rank_scores_those_of_the_likeliest_first_tokens():
    model, images = answerer({'answers': LIST, 'rank': 2}).double(), pictures(1).double()
    head = model.heads.answer
    other = best_of(model, images[0], QUESTIONS[0])[0][1]
    assert not other.startswith('two')
    head.bias.data[ids_of(model, 'two')] = 30.0
    (answered,) = head.answer(asked(model, images, QUESTIONS[:1]), top=6)
    assert set(answered.answers) == {'two red', 'two blue'}
    assert answered.scores[0] > answered.scores[1] > 0
    one = answerer({'answers': LIST, 'rank': 1}).double()
    one.load_state_dict(model.state_dict())
    (only,) = one.heads.answer.answer(asked(one, images, QUESTIONS[:1]), top=6)
    assert only.answers == ['two red']  # the first of the list with this token


@pytest.mark.parametrize('head', [{}, {'rank': 3}, {'restrict': True, 'num_beams': 2}], ids=str)
@torch.no_grad()
def test_equal_questions_about_one_image_are_answered_once(head, monkeypatch):
    model = answerer({'answers': LIST, **head})
    questions, image_of = [QUESTIONS[0], QUESTIONS[1], QUESTIONS[0], QUESTIONS[0]], [0, 1, 0, 1]
    rows = []
    for name in ('start_writing', 'teach'):
        method = getattr(model, name)

        def counted(tokens, of, *args, method=method, **kwargs):
            rows.append(len(of))
            return method(tokens, of, *args, **kwargs)

        monkeypatch.setattr(model, name, counted)
    together = model.heads.answer.answer(asked(model, pictures(2), questions, image_of))
    assert sum(rows) % 3 == 0 and max(rows) <= 3 * max(head.get('rank', 1), head.get('num_beams', 1))
    assert together[0] == together[2]
    for answered, question, image in zip(together, questions, image_of, strict=True):
        (alone,) = model.heads.answer.answer(asked(model, pictures(2)[[image]], [question]))
        assert alone.answers == answered.answers and alone.scores == pytest.approx(answered.scores, rel=1e-4)


@torch.no_grad()
def test_a_question_is_read_once_for_all_answers_and_without_a_cache_with_each(monkeypatch):
    model = answerer({'answers': LIST, 'rank': 6}).double()
    batch, read = asked(model, pictures(3).double()), []
    write_on, start_writing = model.write_on, model.start_writing

    def counted(tokens, state):
        read.append(tokens.input_ids.numel())
        return write_on(tokens, state)

    monkeypatch.setattr(model, 'write_on', counted)
    found = model.heads.answer.answer(batch, top=6)
    # behind what predicts first tokens: each question with the start, and six answers to each as long as the longest
    questions = sum(len(ids_of(model, question)) + 1 for question in QUESTIONS)
    assert sum(read[1:]) == questions + 3 * 6 * max(len(ids_of(model, answer)) for answer in LIST)
    monkeypatch.setattr(model, 'start_writing', lambda *args, cached=False: start_writing(*args))
    for one, other in zip(found, model.heads.answer.answer(batch, top=6), strict=True):
        assert one.answers == other.answers and one.scores == pytest.approx(other.scores, rel=1e-9)


@torch.no_grad()
def test_many_answers_are_scored_in_parts(monkeypatch):
    from florence_mm.models.heads.multimodal import written_answer

    model = answerer({'answers': LIST, 'rank': 3}).double()
    batch = asked(model, pictures(3).double())
    whole = model.heads.answer.answer(batch, top=3)
    for size in (1, 7):
        monkeypatch.setattr(written_answer, '_SCORED_AT_ONCE', size)
        parts = model.heads.answer.answer(batch, top=3)
        for one, other in zip(whole, parts, strict=True):
            assert one.answers == other.answers and one.scores == pytest.approx(other.scores, rel=1e-9)


# --- the list and errors ----------------------------------------------------------------------------------------------


def test_answers_are_said_as_the_list_has_them(tmp_path):
    (tmp_path / 'answers.txt').write_text('RED\nTwo\n')
    for more in ({'rank': 1}, {'restrict': True}):
        model = answerer({'answers': str(tmp_path / 'answers.txt'), **more})
        said = model.predict(pictures(3), samples({}, {}, {}))
        assert {sample.pred_answer for sample in said} <= {'RED', 'Two'}


def test_what_the_weights_were_trained_on():
    model = answerer({'answers': LIST, 'rank': 2})
    model.use_dataset_meta({'answers': tuple(LIST)})
    with pytest.raises(ValueError, match='are not those that the checkpoint was trained on'):
        model.use_dataset_meta({'answers': ('no', 'yes')})
    free = answerer()
    free.use_dataset_meta({'answers': ('no', 'yes')})  # a vocabulary binds none that writes freely
    assert free.answer_names() == [] and not free.has_heads(answers=True)
    free.require(answers=True)


@pytest.mark.parametrize(
    ('head', 'says'),
    [
        ({'rank': 0, 'answers': LIST}, 'rank=0 and max_length=4 of the answer head must be at least 1'),
        ({'max_length': 0}, 'rank=None and max_length=0 of the answer head must be at least 1'),
        ({'rank': 2}, 'answer head got rank, which needs a list'),
        ({'restrict': True}, 'answer head got restrict, which needs a list'),
        ({'restrict': True, 'answers': []}, 'answer head got restrict, which needs a list'),
        ({'rank': 2, 'restrict': True, 'answers': LIST}, 'got rank=2, .*restrict=True, num_beams=1'),
        ({'rank': 2, 'num_beams': 3, 'answers': LIST}, 'got rank=2, .* num_beams=3'),
        ({'rank': 2, 'top_p': 0.5, 'answers': LIST}, 'got rank=2, .* top_p=0.5'),
        ({'restrict': True, 'min_length': 1, 'answers': LIST}, 'got restrict, .* min_length=1; leave one'),
        ({'num_beams': 0}, 'num_beams=0, .* of the answer head'),
        ({'top_p': 2.0}, 'top_p is 2.0'),
    ],
    ids=str,
)
def test_bad_arguments(head, says):
    with pytest.raises(ValueError, match=says):
        answerer(head)


@torch.no_grad()
def test_bad_lists_and_samples():
    for listed, says in {
        ('red', 'a b c d e'): "answer 'a b c d e' has 5 tokens and max_length of the answer head is 4; raise it",
        ('red', 'RED'): "answers 'red' and 'RED' of the answer head are the same tokens; leave one",
        ('red', '<mask>'): "answer '<mask>' of the answer head has no tokens, or some that the vocabulary lacks",
        ('red', ' '): "answer ' ' of the answer head has no tokens",
    }.items():
        for more in ({'rank': 1}, {'restrict': True}):
            with pytest.raises(ValueError, match=says):  # before training, not at the first prediction
                answerer({'answers': listed, **more})
    model = answerer()
    with pytest.raises(ValueError, match='sample 1 of the batch .question_id 7. has no answers to learn; give'):
        model.loss(pictures(3), samples({'answers': ['red']}, {'question_id': 7}, {'answers': ['red']}))
    labels = {'answer_labels': [6], 'answer_scores': [1.0]}
    with pytest.raises(ValueError, match='answer label 6, but the VQA head has 6 answers'):
        answerer({'answers': LIST}).loss(pictures(3), samples(labels, labels, labels))
    with pytest.raises(ValueError, match='max_length of the answer head is 4 .* at most 6 tokens, which leaves none'):
        answerer(max_text_len=6)
    both = {name: {'type': name, 'answers': LIST} for name in ('FusionVQAHead', 'FusionWrittenAnswerHead')}
    with pytest.raises(ValueError, match='FusionVQAHead and FusionWrittenAnswerHead are each one that answers'):
        tiny_meter(both)
