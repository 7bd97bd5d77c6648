import json
import os
import runpy
from pathlib import Path

import pytest
import torch

from florence_mm.apis.model_weights import load_whole_model
from florence_mm.errors import UsageError
from florence_mm.evaluation import rerank_loop
from florence_mm.evaluation.metrics import ZeroShotAccuracy
from florence_mm.models.multimodal import RetrievalReranker

worker = runpy.run_path(str(Path(__file__).with_name('rerank_worker.py')))
make_loop, make_model, dense_scores = (worker[name] for name in ('make_loop', 'make_model', 'dense_scores'))


@pytest.fixture(scope='module')
def one_process(tmp_path_factory):
    return make_loop(tmp_path_factory.mktemp('one'), similarity_weight=0.5).test()


def test_scores_equal_those_of_all_pairs_at_once(one_process, tmp_path):
    wanted = dense_scores({'top_k': 3, 'similarity_weight': 0.5})
    assert {key: one_process[key] for key in wanted} == pytest.approx(wanted)
    # the two-tower model's own scores stand beside
    assert one_process['retrieval/i2t_R@1'] != one_process['reranked/i2t_R@1']
    wanted = dense_scores({'top_k': 7, 'similarity_weight': 0.0})
    scores = make_loop(tmp_path, top_k=7).test()
    assert {key: scores[key] for key in wanted} == pytest.approx(wanted)
    assert scores['retrieval/t2i_MnR'] == one_process['retrieval/t2i_MnR']


def test_the_similarity_is_added_as_often_as_its_weight_says(tmp_path):
    # a weight from 5 to 8 gives these scores; without the weight, or without the temperature of logits, others come
    weight, temperature = 6.0, float(make_model().retriever.temperature())
    wanted = dense_scores({'top_k': 7, 'similarity_weight': weight})
    for other in (0.0, weight / temperature):
        others = dense_scores({'top_k': 7, 'similarity_weight': other})
        assert all(wanted[f'reranked/{way}_MnR'] != others[f'reranked/{way}_MnR'] for way in ('i2t', 't2i'))
    scores = make_loop(tmp_path, top_k=7, similarity_weight=weight).test()
    assert {key: scores[key] for key in wanted} == pytest.approx(wanted)
    # beside a weight without end the match says nothing: the order is the two-tower model's own again
    scores = make_loop(tmp_path, top_k=7, similarity_weight=1e6).test()
    own = {key.partition('/')[2]: value for key, value in scores.items() if key.startswith('retrieval/')}
    assert {key.partition('/')[2]: value for key, value in scores.items() if key.startswith('reranked/')} == own


def test_one_candidate_changes_nothing_and_batches_neither(one_process, tmp_path):
    scores = make_loop(tmp_path, top_k=1).test()
    for key in ('i2t_R@1', 'i2t_R@2', 't2i_R@1', 't2i_MdR'):
        assert scores[f'reranked/{key}'] == scores[f'retrieval/{key}']
    other = make_loop(tmp_path, batch_size=5, pairs_at_once=100, similarity_weight=0.5).test()
    assert other == pytest.approx(one_process)


def test_two_processes_equal_one(one_process, two_processes, tmp_path):
    def work():
        scores = make_loop(tmp_path, 'pytorch', similarity_weight=0.5).test()
        (tmp_path / f'{os.environ["RANK"]}.json').write_text(json.dumps(scores))

    two_processes(work)
    for rank in range(2):  # every process has the scores
        scores = json.loads((tmp_path / f'{rank}.json').read_text())
        assert {k: v for k, v in scores.items() if k.startswith('re')} == pytest.approx(one_process)


def test_each_picture_is_encoded_once_and_few_pairs_are_held(monkeypatch, tmp_path):
    runner = make_loop(tmp_path)
    model, sizes = runner.model, []
    match = RetrievalReranker.match_pictures

    def watched(self, data, texts, pairs, at_once):
        sizes.append((len(data['inputs']), len(set(pairs)) == len(pairs)))
        return match(self, data, texts, pairs, at_once)

    monkeypatch.setattr(RetrievalReranker, 'match_pictures', watched)
    runner.test()
    assert model.matcher.image_encoder.seen == 11
    assert sizes == [(2, True)] * 5 + [(1, True)]


def test_training_trains_the_fusion_model():
    model = make_model().train()
    assert model.matcher.training and not model.retriever.training
    assert not any(p.requires_grad for p in model.retriever.parameters())
    data = [worker['Pictures']()[i] for i in range(4)]
    batch = {key: [row[key] for row in data] for key in ('inputs', 'data_samples')}
    losses = model(**model.data_preprocessor(batch), mode='loss')
    losses['loss_itm'].backward()
    assert set(losses) == {'loss_itm', 'acc_itm'}
    assert all(p.grad is not None for p in model.matcher.image_encoder.parameters())


def reranker(outer=None, retriever=None, matcher=None):
    """Of configs, with these preprocessors."""
    text = {
        'text_encoder': {'type': 'CLIPTextTower', 'arch': {'embed_dims': 16, 'num_layers': 1, 'num_heads': 2}},
        'tokenizer': {'type': 'CLIPTokenizer'},
    }
    words = {'type': 'CLIPTokenEncoder', 'tower': {'arch': text['text_encoder']['arch'], 'context_length': 50}}
    first = {'type': 'UniCL', 'image_encoder': worker['Mean'](), **text, 'embed_dims': 8}
    second = {
        'type': 'METER',
        'image_encoder': worker['Mean'](),
        'text_encoder': words,
        'tokenizer': {'type': 'MaskedCLIPTokenizer'},
        'fusion': {'hidden_size': 16, 'num_heads': 2, 'num_layers': 1},
        'heads': {'itm': {'type': 'FusionITMHead'}},
    }
    for model, own in ((first, retriever), (second, matcher)):
        if own is not None:
            model['data_preprocessor'] = own
    return RetrievalReranker(first, second, outer)


def test_both_models_see_pictures_normalised_alike():
    other = {'mean': [0.0, 0.0, 0.0], 'std': [255.0, 255.0, 255.0]}
    assert reranker().matcher.data_preprocessor.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    model = reranker(other, matcher=other)
    assert model.retriever.data_preprocessor.std.flatten().tolist() == [255] * 3  # as no other is asked for
    bgr = {'type': 'mmdet.DetDataPreprocessor', 'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375]}
    reranker(retriever=bgr)
    reranker(other, matcher={})
    for wrong, name, message in (
        ({'matcher': other}, 'matcher', r'mean=\[0.0, 0.0, 0.0\], std=\[255.*mean=\[123.675, .*make them equal'),
        ({'retriever': {'std': [1.0, 57.12, 57.375]}}, 'retriever', r'std=\[1.0, 57.12, 57.375\] .*std=\[58.395, 57'),
        ({'retriever': {**bgr, 'bgr_to_rgb': True}}, 'retriever', r'channels exchanged, .*channels as they come'),
    ):
        with pytest.raises(ValueError, match=f'data_preprocessor of the {name} of RetrievalReranker has .*{message}'):
            reranker(**wrong)
    built = make_model()
    with pytest.raises(ValueError, match='data_preprocessor of the retriever'):
        RetrievalReranker(built.retriever, built.matcher, other)


def test_a_checkpoint_of_the_fusion_model_alone_fits(tmp_path):
    model = make_model()
    towers, fusion, whole = (tmp_path / f'{name}.pth' for name in ('towers', 'fusion', 'whole'))
    for part, file in ((model.retriever, towers), (model.matcher, fusion), (model, whole)):
        torch.save({'state_dict': part.state_dict(), 'meta': {'mmengine_version': '0.10'}}, file)
    wanted = make_loop(tmp_path / 'run').test()

    def loaded(file, init_cfg=None):
        runner = make_loop(tmp_path / 'run', load_from=str(file))
        for parameter in runner.model.parameters():
            parameter.data.fill_(0.1)
        runner.model.retriever.init_cfg = init_cfg
        return runner

    init = {'type': 'florence_mm.Pretrained', 'checkpoint': str(towers)}
    assert loaded(fusion, init).test() == pytest.approx(wanted)
    assert loaded(whole).test() == pytest.approx(wanted)  # which needs no other file
    with pytest.raises(UsageError, match=r'lacks the \d+ tensors of retriever, .* config names no weights for it'):
        loaded(fusion).test()
    again = make_model()
    for parameter in again.parameters():
        parameter.data.fill_(0.1)
    again.retriever.init_cfg = init
    load_whole_model(again, fusion)  # as inferencers do
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    state = {key: value for key, value in model.matcher.state_dict().items() if not key.startswith('heads.')}
    torch.save({'state_dict': state, 'meta': {'mmengine_version': '0.10'}}, fusion)
    with pytest.raises(
        UsageError, match=r'fusion.pth lacks 2 of the \d+ tensors of RetrievalReranker.*matcher.heads.itm'
    ):
        loaded(fusion, init).test()


def test_errors(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match='no head that matches images and sentences, it has none'):
        RetrievalReranker(make_model().retriever, worker['tiny']['tiny_meter']({}))
    runner = make_loop(tmp_path, evaluator={'type': ZeroShotAccuracy})
    with pytest.raises(ValueError, match=r"metrics \['ZeroShotAccuracy'\].*it needs ImageTextRecall"):
        runner.test()
    with pytest.raises(ValueError, match='top_k=0'):
        make_loop(tmp_path, top_k=0).test()
    runner = make_loop(tmp_path)
    monkeypatch.setattr(rerank_loop, 'collect_results', lambda results, size: results[1:] + results[:1])
    with pytest.raises(ValueError, match='image 0 of the second pass is not that of the first'):
        runner.test()
