"""The loss of written answers, and its gradient, do not depend on how a batch is split over processes."""

import forks
import pytest
import torch
import torch.distributed as dist
from instances import build
from mmpretrain.structures import DataSample
from torch.nn.parallel import DistributedDataParallel

from florence_mm.models.heads.multimodal import FusionWrittenAnswerHead

EXACT = {'rtol': 1e-6, 'atol': 1e-9}
QUESTIONS = ['what colour is it', 'how many', 'is it red', 'how many are there', 'which']
#: Of each question: several answers with their shares, one, none that is left after normalisation, one, several.
ANSWERS = [['red', 'red', 'a two'], ['nine'], ['the', ''], ['no'], ['yes', 'no', 'a blue nine']]
#: Questions of the two processes; in the second split one process has no answer to learn.
SPLITS = [((0, 1), (2, 3, 4)), ((2,), (0, 1, 3, 4))]
FAMILIES = ['METER', 'GIT', 'SimVLM', 'BLIP', 'BLIP-decoder']


def model_of(name):
    head = {'type': FusionWrittenAnswerHead, 'max_length': 6, 'label_smoothing': 0.1}
    return build(name, heads={'answer': head}).eval()


def learn(model, own, rows):
    """Loss and gradients with some of the questions."""
    pictures = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3)).double()
    samples = [DataSample(text=QUESTIONS[row], answers=ANSWERS[row]) for row in rows]
    inputs = pictures[[min(row, 2) for row in rows]]  # the last three are about one picture
    loss = model(inputs, samples, mode='loss')['loss_answer']
    loss.backward()
    return loss.detach(), {key: p.grad for key, p in own.named_parameters() if p.grad is not None}


@pytest.mark.parametrize('name', FAMILIES)
def test_two_processes_learn_what_one_does(name, tmp_path):
    def work():
        dist.init_process_group('gloo')
        rank = dist.get_rank()
        for number, split in enumerate(SPLITS):
            own = model_of(name)
            wrapped = DistributedDataParallel(own, find_unused_parameters=True)
            torch.save(learn(wrapped, own, split[rank]), tmp_path / f'{number}.{rank}')
        dist.destroy_process_group()

    forks.as_ranks(work, 2)
    model = model_of(name)
    loss, gradients = learn(model, model, range(len(QUESTIONS)))
    assert loss > 0 and any(gradient.any() for gradient in gradients.values())
    for number in range(len(SPLITS)):
        seen = [torch.load(tmp_path / f'{number}.{rank}') for rank in (0, 1)]
        torch.testing.assert_close(sum(one[0] for one in seen) / 2, loss, **EXACT)
        for _, got in seen:
            for key, gradient in gradients.items():
                torch.testing.assert_close(got[key], gradient, msg=key, **EXACT)
