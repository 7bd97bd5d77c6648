import runpy
from pathlib import Path

import forks
import pytest
import torch
from torch.nn import functional as F

from florence_mm.ops.contrastive import unified_contrastive_loss

worker = runpy.run_path(str(Path(__file__).with_name('contrastive_worker.py')))
dense_loss = worker['dense_loss']


def batch(b, d=8, dtype=torch.float64, scale=5.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    image = F.normalize(torch.randn(b, d, generator=g, dtype=torch.float64), dim=1).to(dtype).requires_grad_()
    text = F.normalize(torch.randn(b, d, generator=g, dtype=torch.float64), dim=1).to(dtype).requires_grad_()
    return image, text, torch.tensor(scale, dtype=torch.promote_types(dtype, torch.float32), requires_grad=True)


LABELS = {
    'mixed': torch.tensor([3, 3, 1, 2**62, 3, 1, -4, 0, 0, 5, 6]),
    'unique': torch.arange(11) * 977 - 5,
    'same': torch.full((11,), 42),
}


@pytest.mark.parametrize('kind', LABELS)
@pytest.mark.parametrize(('chunk_size', 'keep_bytes'), [(None, 1 << 20), (4, 0), (4, 6 * 11 * 8), (1, 0), (50, 0)])
@pytest.mark.parametrize('weights', [(1.0, 1.0), (1.0, 0.0), (-0.5, 2.0)])
def test_equals_dense_reference(kind, chunk_size, keep_bytes, weights):
    # 6 kept rows of chunks of 4, 4 and 3: only the first chunk is kept
    image, text, scale = leaves = batch(11)
    terms = unified_contrastive_loss(image, text, LABELS[kind], scale, chunk_size, keep_bytes=keep_bytes)
    expected = dense_loss(image, text, LABELS[kind], scale)
    torch.testing.assert_close(terms, expected, rtol=1e-12, atol=1e-12)
    grads = torch.autograd.grad(weights[0] * terms[0] + weights[1] * terms[1], leaves)
    wanted = torch.autograd.grad(weights[0] * expected[0] + weights[1] * expected[1], leaves)
    torch.testing.assert_close(grads, wanted, rtol=1e-11, atol=1e-13)


def test_by_hand():
    # two pairs, orthonormal: logits are [[s, 0], [0, s]], so each row's loss is log(1 + exp(-s))
    eye = torch.eye(2, dtype=torch.float64)
    scale = torch.tensor(2.0, dtype=torch.float64)
    terms = unified_contrastive_loss(eye, eye, torch.tensor([0, 1]), scale)
    assert [float(t) for t in terms] == pytest.approx([0.12692801104297263] * 2, abs=1e-15)
    # as one class, half the target lies on the logit 0
    terms = unified_contrastive_loss(eye, eye, torch.tensor([5, 5]), scale)
    assert [float(t) for t in terms] == pytest.approx([1.12692801104297263] * 2, abs=1e-15)


def test_gradcheck():
    image, text, scale = batch(5, 3)
    labels = torch.tensor([0, 1, 0, 2, 1])
    assert torch.autograd.gradcheck(lambda *x: unified_contrastive_loss(*x[:2], labels, x[2], 2), (image, text, scale))


def test_unique_labels_give_clip_loss():
    from open_clip.loss import ClipLoss

    image, text, scale = leaves = batch(32, 16, torch.float32, 1 / 0.07)
    ours = sum(unified_contrastive_loss(image, text, torch.randperm(32), scale, 8))
    clip = 2 * ClipLoss()(image, text, scale)  # CLIP halves the sum
    torch.testing.assert_close(ours, clip)
    torch.testing.assert_close(torch.autograd.grad(ours, leaves), torch.autograd.grad(clip, leaves))


def test_frozen_tower_and_unscaled_features():
    image, text, scale = batch(11)
    labels = LABELS['mixed']
    expected = torch.autograd.grad(sum(dense_loss(3 * image.detach(), text, labels, scale)), text)
    got = torch.autograd.grad(sum(unified_contrastive_loss(3 * image.detach(), text, labels, scale, 4)), text)
    torch.testing.assert_close(got, expected)
    expected = torch.autograd.grad(sum(dense_loss(image, text.detach(), labels, scale)), (image, scale))
    got = torch.autograd.grad(sum(unified_contrastive_loss(image, text.detach(), labels, scale, 4)), (image, scale))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('cosine', [None, -1, 1])
def test_exact_at_temperature_100(dtype, cosine):
    image, text, scale = batch(40, 16, dtype, 100.0)
    if cosine:  # of every pair: logits reach -100 or 100, of which exp is infinite in fp32
        text = (cosine * image).detach().requires_grad_()
    labels = torch.arange(40) // 2
    terms = unified_contrastive_loss(image, text, labels, scale, 16)
    grads = torch.autograd.grad(sum(terms), (image, text, scale))
    assert grads[0].dtype == dtype
    assert all(g.isfinite().all() for g in grads)
    exact = [x.detach().double().requires_grad_() for x in (image, text, scale)]
    expected = dense_loss(*exact[:2], labels, exact[2])
    wanted = torch.autograd.grad(sum(expected), exact)
    tolerance = 1e-4 if dtype == torch.float32 else 2**-8  # bf16: the rounding of the returned gradient alone
    torch.testing.assert_close(terms, tuple(x.float() for x in expected), rtol=2e-5, atol=2e-5)
    for g, w in zip(grads, wanted, strict=True):
        torch.testing.assert_close(g.double(), w, rtol=tolerance, atol=tolerance * float(w.abs().max()))


def test_autocast_does_not_lower_precision():
    image, text, scale = leaves = batch(24, 16, torch.float32, 100.0)
    plain = sum(unified_contrastive_loss(image, text, torch.arange(24), scale))
    grads = torch.autograd.grad(plain, leaves)
    with torch.autocast('cpu', torch.bfloat16):
        cast = sum(unified_contrastive_loss(image, text, torch.arange(24), scale))
        cast_grads = torch.autograd.grad(cast, leaves)
    assert torch.equal(plain, cast)
    assert all(torch.equal(g, c) for g, c in zip(grads, cast_grads, strict=True))


def test_permuting_pairs_changes_nothing():
    image, text, scale = batch(11)
    labels = LABELS['mixed']
    order = torch.randperm(11, generator=torch.Generator().manual_seed(1))
    one = unified_contrastive_loss(image, text, labels, scale, 4)
    two = unified_contrastive_loss(image[order], text[order], labels[order], scale, 3)
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'text_feat': torch.zeros(3, 5)}, r'image_feat has shape \(4, 5\) and text_feat \(3, 5\)'),
        (
            {'image_feat': torch.zeros(0, 5), 'text_feat': torch.zeros(0, 5), 'labels': torch.zeros(0).long()},
            'non-empty',
        ),
        ({'labels': torch.zeros(4)}, 'torch.float32; give one integer a pair'),
        ({'labels': torch.zeros(5).long()}, r'shape \(4,\)'),
        ({'logit_scale': torch.ones(2)}, 'logit_scale has shape'),
        ({'chunk_size': 0}, 'chunk_size is 0'),
    ],
)
def test_bad_arguments(change, words):
    good = {
        'image_feat': torch.zeros(4, 5),
        'text_feat': torch.zeros(4, 5),
        'labels': torch.arange(4),
        'logit_scale': torch.ones(()),
    }
    unified_contrastive_loss(**good)
    with pytest.raises(ValueError, match=words):
        unified_contrastive_loss(**good | change)


def test_processes_have_the_gradient_of_one(tmp_path):
    world = 3
    forks.as_ranks(lambda: worker['work'](tmp_path / 'out'), world)
    results = [torch.load(tmp_path / f'out.{rank}', weights_only=True) for rank in range(world)]
    torch.manual_seed(0)
    single = worker['gradients'](worker['Towers']().double())
    for size in (1, 2, 3):
        for rank in range(size):
            got = results[rank][str(size)]
            assert got.keys() == single.keys()
            for name, value in single.items():
                torch.testing.assert_close(got[name], value, rtol=1e-10, atol=1e-13, msg=f'{name} on {size} processes')
    for result in results:
        assert '[[4, 6], [4, 6], [3, 6]]' in result['uneven']
        assert 'drop_last=True' in result['uneven']


MEMORY = """
import ctypes, resource, torch
from florence_mm.ops.contrastive import unified_contrastive_loss
torch.set_num_threads(1)
# glibc: blocks of a MiB and more go back when they are freed; else some runs keep 80 MiB that nothing holds
ctypes.CDLL(None).mallopt(-3, 1 << 20)
def step(b):
    image, text = (torch.randn(b, 16).div_(4).requires_grad_() for _ in range(2))
    sum(unified_contrastive_loss(image, text, torch.arange(b), torch.ones((), requires_grad=True))).backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(step(2048), step(8192))  # first what loads the kernels, whose pages count too
"""


def test_peak_memory_is_far_from_quadratic(fresh_process):
    # one 8192 x 8192 fp32 matrix is 256 MiB and a dense loss holds several; ours may hold 64 MiB and a few chunks
    small, large = map(float, fresh_process(MEMORY).stdout.split())
    assert large - small < 130


def test_saved_memory_is_linear_in_the_batch():
    def saved_bytes(b):
        sizes = []
        image, text, scale = batch(b, 8, torch.float32)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.nbytes) or x, lambda x: x):
            unified_contrastive_loss(image, text, torch.arange(b), scale, keep_bytes=0)
        return sum(sizes)

    one, two, four = (saved_bytes(b) for b in (256, 512, 1024))
    assert four - two == 2 * (two - one) > 0
