"""Losses and gradients of BLIP-2, Flamingo, ViLT, UNITER and Perceiver do not depend on how a batch is split.

Two processes learn with parts of a batch, of unequal sizes where that is allowed, and one process with all of it. What
is hidden or false is fixed; hard negatives are drawn by the first process.
"""

import forks
import pytest
import torch
import torch.distributed as dist
from instances import build
from kinds import numbers
from mmpretrain.structures import DataSample
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from whole_kinds import total

from florence_mm.models.heads.multimodal import itm, masked_regions, mlm
from florence_mm.models.multimodal.batch import rows_of
from florence_mm.models.tokenizers.protocol import TokenBatch

EXACT = {'rtol': 1e-6, 'atol': 1e-9}
TEXTS = ['a red two', 'no', 'is a dog by it, or two dogs', 'night', 'three']
END, MARK = '<|endofchunk|>', '<image>'
#: Texts of other lengths, one with nothing behind its picture; the second process has no pair.
DOCUMENTS = [
    (f'{MARK}a two{END}{MARK}dogs{END}', 'web', 2),
    (f'night{END}{MARK}red{END}', 'web', 1),
    (f'{MARK}a dog by it{END}', 'pairs', 1),
    (f'{MARK}', 'web', 1),
    (f'{MARK}no{END}{MARK}three red dogs{END}', 'web', 2),
]


# --- draws that do not depend on processes ----------------------------------------------------------------------------


def every_second_token(tokens, tokenizer, *_):
    chosen = tokens.mask & (torch.arange(tokens.mask.shape[1]) % 2 == 1)
    return TokenBatch(torch.where(chosen, tokenizer.mask_token_id, tokens.input_ids), tokens.mask), chosen


def first_regions(real, *_):
    """Three of the first image, one of the others."""
    chosen = torch.zeros_like(real)
    chosen[:, 0] = True
    return real & chosen


def said_images(batch):
    matches = torch.tensor([sample.is_own for sample in batch.samples])
    own, false = rows_of(batch.images, batch.image_of), torch.stack(batch.field('false_images'))
    return torch.where(matches.view(-1, *(1,) * (own.ndim - 1)), own, false), matches.tolist()


@pytest.fixture(autouse=True)
def nothing_is_drawn(monkeypatch):
    monkeypatch.setattr(mlm, 'mask_tokens', every_second_token)
    monkeypatch.setattr('florence_mm.models.algorithms.perceiver_masked_lm.mask_tokens', every_second_token)
    monkeypatch.setattr(masked_regions, 'choose_regions', first_regions)
    monkeypatch.setattr(itm, 'half_false_images', said_images)


# --- what is learned --------------------------------------------------------------------------------------------------


class Places(nn.Module):
    """A head that is asked about places, of which images have other numbers."""

    def __init__(self):
        super().__init__()
        self.head = build('PlaceQueryHead')

    def forward(self, inputs, samples, mode):
        return self.head.loss((inputs,), samples)


def pictures(*shape):
    return numbers(len(TEXTS), *shape, seed=3).double()


def with_texts(number=5, **fields):
    return [
        DataSample(text=TEXTS[row], img_id=row, **{key: value[row] for key, value in fields.items()})
        for row in range(number)
    ]


def matched(*shape):
    return {'false_images': pictures(*shape).flip(0), 'is_own': [True, False, False, True, False]}


def blip2():
    heads = {
        'itc': {'type': 'FusionITCHead', 'embed_dims': 4, 'positives': 'own_text', 'label_smoothing': 0.1},
        'itm': {'type': 'FusionITMHead', 'negatives': 'all'},
        'caption': {'type': 'FusionCaptionHead', 'tied': True, 'label_smoothing': 0.1},
    }
    return build('BLIP2', heads=heads), pictures(3, 32, 32)[:4], with_texts(4)


def writer(name):
    model = build(name, heads={'caption': {'type': 'FusionCaptionHead', 'max_length': 5}})
    return model, pictures(3, 32, 32), with_texts()


def flamingo():
    heads = {'caption': {'type': 'DocumentHead', 'weights': {'web': 1.0, 'pairs': 0.2}}}
    samples = [DataSample(document=text, data_source=source, num_pictures=n) for text, source, n in DOCUMENTS]
    return build('FlorenceFlamingo', heads=heads), pictures(3, 2, 32, 32), samples


def vilt():
    heads = {
        'itm': {'type': 'FusionITMHead', 'negatives': 'data_set', 'alignment': 0.5},
        'mlm': {'type': 'FusionMLMHead', 'whole_word': True},
    }
    return build('ViLT', heads=heads), pictures(3, 32, 32), with_texts(**matched(3, 32, 32))


def uniter():
    """With all heads in one step."""
    regions = torch.cat([pictures(4, 13), torch.ones(5, 4, 1).double()], 2)
    regions[1:3, 2:] = 0  # of which two images have fewer
    heads = {
        'mlm': {'type': 'FusionMLMHead'},
        'ranking': {'type': 'FusionRankingHead'},
        'mrfr': {'type': 'FusionMRFRHead'},
        'mrc': {'type': 'FusionMRCHead', 'num_classes': 3},
    }
    counts = regions[..., -1].sum(1).long().tolist()
    classes = [numbers(count, 4, seed=count).double().softmax(1) for count in counts]
    samples = with_texts(region_classes=classes, false_texts=[['no', 'two']] * 5)
    return build('UNITER', heads=heads, tasks={}), regions, samples


def places():
    samples = [
        DataSample(places=torch.rand(n, 2, generator=torch.Generator().manual_seed(n)), place_labels=torch.arange(n))
        for n in (3, 1, 2, 4, 1)
    ]
    return Places(), pictures(5, 16), samples


CASES = {
    'BLIP2': blip2,
    'BLIP2Writer': lambda: writer('BLIP2Writer'),
    'BLIP2Writer-t5': lambda: writer('BLIP2Writer-t5'),
    'FlorenceFlamingo': flamingo,
    'ViLT': vilt,
    'UNITER': uniter,
    'LanguageModeling': lambda: (build('LanguageModeling'), pictures(1), with_texts()),
    'PerceiverMaskedLM': lambda: (build('PerceiverMaskedLM'), pictures(1), with_texts()),
    'PlaceQueryHead': places,
}


def learn(model, own, inputs, samples):
    torch.manual_seed(5 + 100 * (dist.is_initialized() and dist.get_rank()))  # hard negatives: the first one's
    losses = model(inputs, samples, mode='loss')
    total(losses).backward()
    gradients = {key: parameter.grad for key, parameter in own.named_parameters() if parameter.grad is not None}
    return {key: value.detach() for key, value in losses.items() if 'loss' in key}, gradients


def test_two_processes_learn_what_one_does(tmp_path):
    def work():
        dist.init_process_group('gloo')
        rank = dist.get_rank()
        for name, case in CASES.items():
            model, inputs, samples = case()
            own = slice(0, 2) if rank == 0 else slice(2, None)
            wrapped = DistributedDataParallel(model.eval(), find_unused_parameters=True)
            torch.save(learn(wrapped, model, inputs[own], samples[own]), tmp_path / f'{name}.{rank}')

    forks.as_ranks(work, 2)
    for name, case in CASES.items():
        model, inputs, samples = case()
        losses, gradients = learn(model.eval(), model, inputs, samples)
        assert any(gradient.any() for gradient in gradients.values()) and all(losses.values()), name
        seen = [torch.load(tmp_path / f'{name}.{rank}') for rank in (0, 1)]
        for key, loss in losses.items():
            mean = (seen[0][0][key] + seen[1][0][key]) / 2
            torch.testing.assert_close(mean, loss, **EXACT, msg=lambda text, n=(name, key): f'{n} {text}')
        for _, got in seen:
            assert got.keys() == gradients.keys()
            for key, gradient in gradients.items():
                torch.testing.assert_close(got[key], gradient, **EXACT, msg=lambda text, n=(name, key): f'{n} {text}')


def test_frozen_parts_of_two_processes_stay_bit_by_bit_and_the_rest_is_what_one_learns(tmp_path):
    def train(model, wrapped, inputs, samples):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1, eps=1e-3)
        for _ in range(2):
            optimizer.zero_grad()
            learn(wrapped, model, inputs, samples)
            optimizer.step()
        return model.state_dict()

    def work():
        dist.init_process_group('gloo')
        rank = dist.get_rank()
        model, inputs, samples = writer('BLIP2Writer')
        own = slice(0, 2) if rank == 0 else slice(2, None)
        state = train(model, DistributedDataParallel(model.eval()), inputs[own], samples[own])
        torch.save(state, tmp_path / f'state.{rank}')

    forks.as_ranks(work, 2)
    model, inputs, samples = writer('BLIP2Writer')
    before = {key: value.clone() for key, value in model.state_dict().items()}
    after = train(model, model.eval(), inputs, samples)
    for rank in (0, 1):
        state = torch.load(tmp_path / f'state.{rank}')
        for key, value in state.items():
            if key.startswith(('image_encoder.', 'language_model.')):
                assert torch.equal(value, before[key]), key
            else:
                torch.testing.assert_close(value, after[key], **EXACT, msg=key)
        changed = {key.split('.')[0] for key, value in state.items() if not torch.equal(value, before[key])}
        assert changed == {'ln_vision', 'qformer', 'language_projection'}
