"""Exported answers to questions and matches of sentences are those of the model."""

import numpy as np
import pytest
import torch
from running import CROP, RESIZE, noise, run
from small_models import METER, VOCAB, config

from florence_mm.apis import MultimodalInferencer
from florence_mm.errors import UsageError
from florence_mm.export import load_exported
from florence_mm.export.exporting import export_part
from florence_mm.export.parts import parts_of
from florence_mm.models.tokenizers.protocol import TokenBatch
from florence_mm.registry import MODELS

QUESTIONS = ['how many dogs are there?', 'what colour is it?', 'is there a cat']


@pytest.fixture(scope='module')
def meter(tmp_path_factory):
    """An inferencer, and files of its model's two heads."""
    folder = tmp_path_factory.mktemp('meter')
    cfg = config(METER, RESIZE, CROP, pack='florence_mm.PackVQA')
    loaded = run(cfg, folder / 'answerer.onnx', '--part', 'answerer')
    run(cfg, folder / 'matcher.pt2', '--part', 'matcher')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('florence_mm.apis.setup.ready_model', lambda *_: (loaded.model, {}, torch.device('cpu')))
        inferencer = MultimodalInferencer(cfg, None, 'cpu')
    return inferencer, folder


def test_answers_are_the_inferencers(meter):
    inferencer, folder = meter
    pictures = [noise(50, 70, 1), noise(64, 48, 2), noise(40, 40, 3)]
    expected = inferencer(pictures, questions=QUESTIONS, top=2)
    found = load_exported(folder / 'answerer.onnx')(pictures, texts=QUESTIONS, top=2, batch_size=2)
    for one, other in zip(expected, found, strict=True):
        assert (one['width'], one['height']) == (other['width'], other['height'])
        for asked, said in zip(one['answers'], other['answers'], strict=True):
            assert (asked['question'], asked['answers']) == (said['question'], said['answers'])
            assert asked['scores'] == pytest.approx(said['scores'], abs=1.1e-4)
    scores = [said['scores'][0] for one in found for said in one['answers']]
    assert max(scores) - min(scores) > 0.01  # they tell pictures or questions apart


def test_matches_are_the_inferencers(meter):
    inferencer, folder = meter
    pictures = [noise(50, 70, 1), noise(64, 48, 2)]
    sentences = ['two dogs', 'a long sentence of many more words than the model can take at once']
    found = load_exported(folder / 'matcher.pt2')(pictures, texts=sentences)
    for one, other in zip(inferencer(pictures, sentences=sentences), found, strict=True):
        assert [match['sentence'] for match in other['matches']] == sentences
        for match, said in zip(one['matches'], other['matches'], strict=True):
            assert match['score'] == pytest.approx(said['score'], abs=1.1e-4)


def test_texts_of_a_file_may_be_many_more_than_pictures(meter):
    inferencer, folder = meter
    picture, questions = noise(40, 40), [f'how many of {number}?' for number in range(70)]
    file = load_exported(folder / 'answerer.onnx')
    (found,) = file(picture, texts=questions, top=1)
    (alone,) = file(picture, texts=questions[69], top=1)
    assert len(found['answers']) == 70
    assert found['answers'][69]['scores'] == pytest.approx(alone['answers'][0]['scores'], abs=1.1e-4)


def test_padding_of_texts_changes_nothing(meter):
    inferencer, folder = meter
    tokens: TokenBatch = inferencer.model.tokenize(['a dog'])
    ids, mask = tokens.input_ids.numpy(), tokens.mask.numpy().astype(np.int64)
    image = {'images': np.ones((1, 3, 32, 32), dtype=np.float32), 'image_of': np.zeros(1, dtype=np.int64)}
    run_file = load_exported(folder / 'matcher.pt2').run
    short = run_file({**image, 'input_ids': ids, 'attention_mask': mask})['log_odds']
    padded = {name: np.pad(array, ((0, 0), (0, 2))) for name, array in (('input_ids', ids), ('attention_mask', mask))}
    padded['input_ids'][:, -2:] = 7  # whatever stands there
    assert np.abs(run_file({**image, **padded})['log_odds'] - short).max() < 1e-5


def test_questions_are_needed_where_they_are_asked(meter):
    file = load_exported(meter[1] / 'answerer.onnx')
    assert file.class_names == ['one', 'two', 'three', 'red'] and file.metadata['max_text_len'] == 12
    with pytest.raises(UsageError, match=r'takes texts about pictures; give them as texts=\[...\]'):
        file(noise(40, 40))
    with pytest.raises(UsageError, match="a text is ' ', which says nothing; write one"):
        file(noise(40, 40), texts=[' '])
    for wrong, kind in ((5, 'int'), (None, 'NoneType'), (b'one', 'bytes'), ({'a': 1}, 'dict')):
        with pytest.raises(UsageError, match=f'texts is of type {kind}; give a text, or a list'):
            file(noise(40, 40), texts=wrong)
        with pytest.raises(UsageError, match=f'inputs is of type {kind}; give a file, an array'):
            file(wrong, texts=['one'])
    with pytest.raises(UsageError, match='takes texts and got 3; give strings'):
        file(noise(40, 40), texts=[3])


def test_answers_with_roberta_are_exported(tmp_path):
    sizes = {'hidden_size': 16, 'num_hidden_layers': 1, 'num_attention_heads': 2, 'intermediate_size': 16}
    roberta = {'type': 'florence_mm.RobertaTextEncoder', 'config': {**sizes, 'vocab_size': VOCAB + 1}}
    model = MODELS.build({**METER, 'text_encoder': roberta}).eval().requires_grad_(False)
    (part,) = parts_of(model, (32, 32), only='answerer')
    made = export_part(part, tmp_path / 'a.pt2', {})  # compares with the model at several numbers and lengths
    assert made.limits['texts'] == (1, None) and made.limits['length'][1] > 12
    assert len(made.checks) == 3 and max(check.difference for check in made.checks) < 1e-5
