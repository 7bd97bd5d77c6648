"""BLIP's sharing in distributed training and in files, and what it refuses."""

import forks
import pytest
import torch
import torch.distributed as dist
from mmpretrain.structures import DataSample
from public_blip import HEADS, MOMENTUM, SHARED, WIDTH, Ids, ours, randomise
from torch import nn

from florence_mm.engine.parallelize import gather_model_state, parallelize
from florence_mm.models.checkpoints import load_checkpoint, write_safetensors
from florence_mm.models.multimodal import RetrievalReranker
from florence_mm.models.multimodal.protocol import unwrap_reranker

PRETRAINING = {**HEADS, 'itc': {**MOMENTUM, 'alpha_steps': 4}, 'itm': {**HEADS['itm'], 'negatives': 'all'}}
TEXTS = ['5 9 12 30', '7 6', '20 21 22 23 24 25', '8', '31 7', '9 9 9']
EXACT = {'rtol': 1e-10, 'atol': 1e-12}


def pretrained(heads=PRETRAINING, **text):
    model = ours(heads, drop_rate=0.0, attn_drop_rate=0.0, **text)
    return randomise(model).double().train()


def batch(take=slice(None), step=0):
    pictures = torch.randn(6, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
    return pictures[take], [DataSample(text=text) for text in TEXTS[take]]


def steps(model, take=slice(None), count=3):
    """Losses of some steps of training."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.05)
    seen = []
    for step in range(count):
        torch.manual_seed(step)
        losses = model(*batch(take, step), mode='loss')
        optimizer.zero_grad()
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        optimizer.step()
        seen.append({name: value.detach().clone() for name, value in losses.items() if 'loss' in name})
    return seen


@pytest.mark.parametrize('way', ['DDP', 'FSDP2'])
def test_two_processes_learn_what_one_learns(way, tmp_path):
    def work():
        dist.init_process_group('gloo')
        rank, model = dist.get_rank(), pretrained()
        if way == 'FSDP2':
            trained = parallelize(model, blocks=['PreNormBlock'], shard=True, reduce_dtype=None)
        else:
            trained = nn.parallel.DistributedDataParallel(model)
        losses = steps(trained, slice(3 * rank, 3 * rank + 3))
        state = gather_model_state(model) if way == 'FSDP2' else model.state_dict()
        torch.save({'state': state, 'losses': losses}, tmp_path / f'seen.{rank}')
        dist.destroy_process_group()

    forks.as_ranks(work, 2)
    seen = [torch.load(tmp_path / f'seen.{rank}') for rank in (0, 1)]
    model = pretrained()
    for step, losses in enumerate(steps(model)):
        for name, value in losses.items():
            mean = sum(one['losses'][step][name] for one in seen) / 2
            torch.testing.assert_close(mean, value, rtol=1e-6, atol=1e-6)
    for one in seen:  # with the queue and the momentum model
        assert one['state'].keys() == model.state_dict().keys()
        for name, value in model.state_dict().items():
            torch.testing.assert_close(one['state'][name], value, rtol=1e-6, atol=1e-6)


def test_a_file_has_each_tensor_once_and_training_goes_on_from_it(tmp_path):
    model = pretrained()
    steps(model, count=2)
    state = model.state_dict()
    places = [value.data_ptr() for value in state.values() if value.numel()]
    assert len(set(places)) == len(places)
    file = write_safetensors(tmp_path / 'blip.safetensors', state)
    again = pretrained()
    report = load_checkpoint(again, file, strict=True)
    assert set(report.loaded) == set(state)
    for one, other in zip(steps(again), steps(model), strict=True):
        assert all(torch.equal(one[name], value) for name, value in other.items())


def test_what_is_shared_and_what_is_not():
    model = ours({'caption': HEADS['caption']})
    count = dict.fromkeys(('attention', 'causal_attention', 'crossattention', 'intermediate', 'output'), 0)
    for name, parameter in model.text_encoder.layers[0].named_parameters():
        count[name.partition('.')[0]] += parameter.numel()
    attention = 4 * WIDTH**2 + 4 * WIDTH + 2 * WIDTH  # with its output layer and norm
    assert count['attention'] == count['causal_attention'] == attention
    apart = ours({'caption': HEADS['caption']}, decoder={})
    more = sum(p.numel() for p in apart.parameters()) - sum(p.numel() for p in model.parameters())
    assert more == sum(p.numel() for p in apart.text_decoder.parameters()) - 2 * attention
    assert apart.word_embeddings is apart.text_decoder.embeddings.word_embeddings


@torch.no_grad()
def test_the_first_stage_of_retrieval_can_be_its_own():
    model = pretrained().eval()
    reranker = RetrievalReranker(None, model).eval()
    pictures, _ = batch(slice(0, 2))
    samples = reranker(pictures, [DataSample(texts=['7 6', '8']), DataSample(texts=['9'])], mode='predict')
    tokens = model.encode_image(pictures)
    head = model.heads['itc']
    expected = nn.functional.normalize(head.image_proj(tokens[:, 0]), dim=1)
    torch.testing.assert_close(torch.stack([sample.image_feat for sample in samples]), expected, **EXACT)
    torch.testing.assert_close(reranker(pictures), expected, **EXACT)
    assert samples[0].text_feat.shape == (2, SHARED)
    assert reranker.similarity_scale() == pytest.approx(1 / float(head.temperature))
    assert unwrap_reranker(reranker) is model
    with pytest.raises(ValueError, match='no head that embeds images and texts'):
        RetrievalReranker(None, ours({'itm': HEADS['itm']}))


@torch.no_grad()
def test_a_question_asked_twice_is_read_once(monkeypatch):
    model = randomise(ours({'vqa': HEADS['caption']}, WIDTH)).eval()
    tokens, questions = model.encode_image(batch()[0][:2].float()), model.tokenize(['5 6', '5 6', '7', '5 6'])
    answers = model.tokenize(['8', '9 9', '10', '11'])
    whole = model.teach(tokens, [0, 0, 1, 1], questions, answers)
    asked, fuse = [], model.fuse
    monkeypatch.setattr(model, 'fuse', lambda text, *rest: asked.append(len(text)) or fuse(text, *rest))
    again = model.teach(tokens, [0, 0, 1, 1], questions, answers)
    assert asked == [3] and torch.equal(whole, again)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'image_pool': 'last'}, "image_pool is 'last'; use 'first' for a backbone with a class token, or 'mean'"),
        ({'dec_token_id': 60, 'vocab_size': 40}, 'there are 61 ids in the tokenizer and vocab_size of TextStack is 40'),
        ({'max_positions': 5}, 'there are 12 tokens in max_text_len and context_length of TextStack is 5'),
    ],
)
def test_arguments_that_do_not_fit(change, words):
    with pytest.raises(ValueError, match=words):
        ours({}, **change)


def test_a_decoder_that_cannot_read():
    model = ours({'caption': HEADS['caption']})  # 48 of images, 32 of texts
    tokens = model.encode_image(batch()[0][:1].float())
    with pytest.raises(ValueError, match=r'reads what is 48 wide, and questions are 32 wide; give it a decoder of its'):
        model.start_writing(tokens, [0], model.tokenize(['5']))
    apart = ours({'caption': HEADS['caption']}, decoder={})
    with pytest.raises(ValueError, match='reads what is 32 wide, and images are 48 wide; leave out `decoder`'):
        apart.start_writing(tokens, [0])


def test_ids_of_marks():
    class Plain(Ids):
        extra_token_ids = {}

    model = ours({}, tokenizer=Plain())
    assert (model.dec_token_id, model.enc_token_id, model.word_embeddings.num_embeddings) == (40, 41, 42)
