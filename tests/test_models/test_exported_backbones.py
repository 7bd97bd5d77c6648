"""Exported backbones give the features of the model, at other batches and sizes than those they were exported with."""

import pytest
import torch
from public_davit import davit
from torch.export import Dim, export

from florence_mm.models.backbones.coswin import CoSwin
from florence_mm.models.backbones.davit import FlorenceDaViT
from florence_mm.models.backbones.video_coswin import VideoCoSwin
from florence_mm.ops.traced_windows import traced_partition
from florence_mm.ops.windows import window_plan


def difference(exported, model, *shape):
    x = torch.randn(shape)
    with torch.no_grad():
        pairs = zip(exported(x), model(x), strict=True)
        return max((ours - theirs).abs().max().item() for ours, theirs in pairs)


SMALL = {'embed_dims': 16, 'depths': [2, 2], 'num_heads': [1, 2], 'window_size': 4}


@pytest.fixture
def coswin():
    return CoSwin(SMALL, 32, patch_size=4, out_indices=(0, 1)).requires_grad_(False).eval()


def test_coswin_with_free_batch_and_size(coswin):
    x = torch.randn(2, 3, 64, 96)
    exported = export(coswin, (x,), dynamic_shapes=({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)).module()
    # maps that the windows divide and maps that they do not, square and not
    for shape in ((2, 3, 64, 96), (1, 3, 48, 48), (3, 3, 100, 122)):
        assert difference(exported, coswin, *shape) < 1e-5


def test_swin_with_a_bounded_batch():
    swin = CoSwin(SMALL, 32, patch_size=4, conv_embed=False).requires_grad_(False).eval()
    exported = export(swin, (torch.randn(2, 3, 64, 96),), dynamic_shapes=({0: Dim('B', min=1, max=9)},)).module()
    assert max(difference(exported, swin, batch, 3, 64, 96) for batch in (1, 2, 9)) < 1e-5


def test_davit_with_free_batch_and_size():
    model = (
        FlorenceDaViT({'embed_dims': [16], 'depths': [1], 'num_heads': [2]}, window_size=4).requires_grad_(False).eval()
    )
    x = torch.randn(2, 3, 64, 96)
    exported = export(model, (x,), dynamic_shapes=({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)).module()
    for shape in ((2, 3, 64, 96), (1, 3, 48, 48), (3, 3, 100, 122)):
        assert difference(exported, model, *shape) < 1e-5


@pytest.mark.parametrize('first', [False, True])
def test_davit_of_one_size(first):
    model = davit(first=first).requires_grad_(False)
    x, other = torch.randn(2, 3, 68, 96), torch.randn(2, 3, 68, 96)
    exported = export(model, (x,), dynamic_shapes=({0: Dim.AUTO},)).module()
    assert max(difference(exported, model, batch, 3, 68, 96) for batch in (1, 2, 5)) < 1e-5
    traced = torch.jit.trace(lambda x: model(x)[-1], x, check_trace=True)
    assert (traced(other) - model(other)[-1]).abs().max() < 1e-5


def test_coswin_traced_twice_alike(coswin):
    x = torch.randn(2, 3, 64, 96)
    # the check traces it a second time, and compares the operators
    traced = torch.jit.trace(lambda x: coswin(x)[-1], x, check_trace=True)
    other = torch.randn(2, 3, 64, 96)
    assert (traced(other) - coswin(other)[-1]).abs().max() < 1e-5
    # what eager evaluation cached in between changes nothing
    assert (traced(x) - coswin(x)[-1]).abs().max() < 1e-5


def test_video_coswin_with_free_batch_and_size():
    model = VideoCoSwin({**SMALL, 'depths': [2], 'num_heads': [1]}).requires_grad_(False).eval()
    free = {0: Dim.AUTO, 3: Dim.AUTO, 4: Dim.AUTO}
    exported = export(model, (torch.randn(2, 3, 8, 64, 96),), dynamic_shapes=(free,)).module()
    assert difference(exported, model, 1, 3, 8, 80, 128) < 1e-5


@pytest.mark.parametrize(
    ('size', 'window', 'shift'),
    [((4, 6), (2, 3), (0, 0)), ((8, 8), (4, 4), (2, 2)), ((5, 9), (4, 4), (2, 1)), ((3, 7, 8), (2, 4, 4), (1, 0, 2))],
)
def test_partition_by_operators_is_that_of_the_plan(size, window, shift):
    plan, traced = window_plan(size, window, shift), traced_partition(size, window, shift, 'cpu')
    slots = plan.num_windows * torch.tensor(window).prod()
    assert traced.order.tolist() == (torch.arange(slots) if plan.order is None else plan.order).tolist()
    assert traced.inverse.tolist() == (torch.arange(slots) if plan.order is None else plan.inverse).tolist()
    assert traced.padding.nonzero().flatten().tolist() == ([] if plan.padding is None else plan.padding.tolist())
    assert (traced.mask is None and plan.mask is None) or torch.equal(traced.mask, plan.mask)
