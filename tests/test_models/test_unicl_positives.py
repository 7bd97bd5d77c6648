"""UniCL's loss and CLIP's: what sets them apart, and what does not."""

import itertools
import runpy
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from florence_mm.models.algorithms.unicl import POSITIVES
from florence_mm.ops.collectives import Peers

worker = runpy.run_path(str(Path(__file__).with_name('unicl_worker.py')))
build, batch, gradients = worker['build'], worker['batch'], worker['gradients']
#: the first three and the last two have one label each, whatever the template
PROMPTS = ['a dog', 'a photo of a dog', 'dog', 'a cat', 'two cats']


def losses(model, data):
    """Both terms, of a batch that is preprocessed first."""
    found = model(**model.data_preprocessor(data, True), mode='loss')
    return torch.stack([found['loss_i2t'], found['loss_t2i']])


def test_own_texts_are_clips_loss():
    model = build(positives='own_text')
    image, text = model(**model.data_preprocessor(batch(), True), mode='tensor')
    logits = model.temperature() * image @ text.T
    own = torch.arange(len(logits))
    expected = torch.stack([F.cross_entropy(logits, own), F.cross_entropy(logits.T, own)])
    torch.testing.assert_close(losses(model, batch()), expected)
    # some of the texts have one label but are not written alike
    assert not torch.allclose(losses(build(), batch()), expected, rtol=1e-4)


def test_labels_are_not_needed_for_own_texts():
    data = batch()
    for sample in data['data_samples']:
        del sample.label_key
    assert losses(build(positives='own_text'), data).isfinite().all()


def test_texts_that_are_written_alike_make_both_losses_equal():
    texts = ['a dog', 'a cat', 'a dog', 'a dog', 'a cat', 'night']
    expected = gradients(build().double(), batch(texts))
    found = gradients(build(positives='own_text').double(), batch(texts))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)


def test_unicl_is_the_mean_of_clip_over_templates_exchanged_within_a_label():
    data = batch(PROMPTS)
    for number, sample in enumerate(data['data_samples']):
        sample.set_field(int(number > 2), 'label_key')
    plain, total = build(positives='own_text').double(), torch.zeros(2, dtype=torch.float64)
    orders = [
        (*dogs, *cats) for dogs in itertools.permutations(range(3)) for cats in itertools.permutations(range(3, 5))
    ]
    for order in orders:
        exchanged = batch([PROMPTS[place] for place in order])
        total += losses(plain, exchanged).detach()
    torch.testing.assert_close(losses(build().double(), data).detach(), total / len(orders), rtol=1e-9, atol=1e-12)


def test_rows_are_numbered_over_processes():
    peers = Peers()
    assert list(peers.row_numbers(3)) == [0, 1, 2]
    peers.rank, peers.size = 2, 4
    assert list(peers.row_numbers(3)) == [6, 7, 8]


def test_other_positives_are_refused():
    assert all(build(positives=name).positives == name for name in POSITIVES)
    with pytest.raises(ValueError, match="positives is 'labels'; give one of equal_texts, own_text"):
        build(positives='labels')
