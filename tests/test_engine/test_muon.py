import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

import florence_mm.engine  # noqa: F401  (registers)
from florence_mm.engine.optim import MuonAdamW, muon, orthogonalize, parameter_groups


def matrix_with(singular_values, rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(rows, rows, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(columns, columns, generator=generator))
    count = len(singular_values)
    return left[:, :count] @ torch.diag(torch.tensor(singular_values)) @ right[:, :count].T, left, right


@pytest.mark.parametrize('shape', [(4, 6), (6, 4), (4, 4)])
def test_singular_values_become_nearly_equal_and_vectors_stay(shape):
    matrix, left, right = matrix_with([9.0, 3.0, 1.0, 0.5], *shape)
    made = orthogonalize(matrix[None])[0]
    assert made.shape == shape
    inside = left[:, :4].T @ made @ right[:, :4]  # diagonal, where the singular vectors are the same
    assert (inside - torch.diag(inside.diagonal())).abs().max() < 1e-4
    assert inside.diagonal().min() > 0.6 and inside.diagonal().max() < 1.3
    # the sum of squares is that of an orthogonal matrix, so nothing was lost into other directions
    torch.testing.assert_close(made.square().sum(), inside.diagonal().square().sum())


def test_one_step_by_hand():
    # of a multiple of an orthogonal matrix every singular value is 1 / sqrt(2) after the division by the norm
    value = 2**-0.5
    for _ in range(2):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    turn = torch.tensor([[0.0, -3.0], [3.0, 0.0]])
    torch.testing.assert_close(orthogonalize(turn[None], steps=2)[0], value * turn / 3)
    weight = nn.Parameter(torch.eye(2))
    optimizer = MuonAdamW([{'params': [weight], 'orthogonal': True}], lr=0.1, weight_decay=0.5, ns_steps=2)
    weight.grad = turn.clone()
    optimizer.step()
    # decay 1 - 0.1 x 0.5, rate 0.1, and the 0.2 of AdamW's updates for a larger side of 2
    torch.testing.assert_close(weight.detach(), 0.95 * torch.eye(2) - 0.1 * 0.2 * 2**0.5 * value * turn / 3)


@pytest.mark.parametrize('shape', [(5, 8), (8, 5), (6, 24), (6, 8)])
@pytest.mark.parametrize('steps', [1, 2, 5])
def test_long_matrices_are_those_of_the_plain_iteration(shape, steps):
    # in 64 bits every step multiplies the matrix itself; two of the singular values are nearly 0
    matrix, _, _ = matrix_with([9.0, 3.0, 1.0, 1e-4, 1e-6], *shape)
    plain = orthogonalize(matrix.double()[None], steps)
    assert muon._is_long(*sorted(shape), True) == (shape != (6, 8)) and not muon._is_long(*sorted(shape), False)
    # a step multiplies small values, and what they were rounded by, by 3.4445
    bound = 8 * 2**-24 * 3.4445**steps
    torch.testing.assert_close(orthogonalize(matrix[None], steps).double(), plain, rtol=0, atol=bound)


def test_costs_are_the_multiplications_made(monkeypatch):
    made = []
    multiply, multiply_add = torch.Tensor.__matmul__, torch.baddbmm
    count = lambda left, right: made.append(left.shape[1] * left.shape[2] * right.shape[2])  # noqa: E731
    monkeypatch.setattr(torch.Tensor, '__matmul__', lambda x, y: count(x, y) or multiply(x, y))
    monkeypatch.setattr(torch, 'baddbmm', lambda z, x, y, **kw: count(x, y) or multiply_add(z, x, y, **kw))
    for shape in ((3, 4), (4, 12), (12, 4)):
        for steps in (1, 4):
            made.clear()
            orthogonalize(torch.rand(1, *shape), steps)
            assert muon._cost(torch.rand(shape), steps) == sum(made)


def test_batches_scale_and_zeros():
    several = torch.stack([matrix_with([4.0, 1.0, 0.3], 3, 5, seed)[0] for seed in range(3)])
    together = orthogonalize(several)
    for one, made in zip(several, together, strict=True):
        torch.testing.assert_close(orthogonalize(one[None])[0], made)
        torch.testing.assert_close(orthogonalize(1000 * one[None])[0], made)
    assert orthogonalize(torch.zeros(1, 3, 5)).eq(0).all()


def test_momentum_over_two_steps():
    first, second = torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0]))
    weight = nn.Parameter(torch.zeros(2, 2))
    optimizer = MuonAdamW([{'params': [weight], 'orthogonal': True}], lr=1.0, weight_decay=0.0, momentum=0.5)
    weight.grad = first.clone()
    optimizer.step()
    before = weight.detach().clone()
    weight.grad = second.clone()
    optimizer.step()
    mean = 0.5 * (0.5 * first) + 0.5 * second
    ahead = 0.5 * second + 0.5 * mean
    expected = -0.2 * 2**0.5 * orthogonalize(ahead[None])[0]
    torch.testing.assert_close(weight.detach() - before, expected)
    assert optimizer.state[weight]['momentum_buffer'].equal(mean)


@pytest.mark.parametrize('fused', [False, True])
def test_other_groups_are_adamws(fused):
    torch.manual_seed(0)
    mine = nn.Parameter(torch.randn(5))
    theirs = nn.Parameter(mine.detach().clone())
    matrix = nn.Parameter(torch.randn(3, 4))
    options = {'lr': 0.1, 'betas': (0.8, 0.9), 'weight_decay': 0.3, 'fused': fused}
    optimizer = MuonAdamW([{'params': [matrix], 'orthogonal': True}, {'params': [mine]}], **options)
    reference = torch.optim.AdamW([theirs], **options)
    for _ in range(4):
        grad = torch.randn(5)
        mine.grad, theirs.grad, matrix.grad = grad.clone(), grad.clone(), torch.randn(3, 4)
        optimizer.step()
        reference.step()
    assert mine.equal(theirs)
    assert len(optimizer.param_groups) == 2


def test_state_goes_on_where_it_was_saved():
    def make():
        torch.manual_seed(0)
        layer = nn.Linear(3, 4)
        return layer, MuonAdamW([{'params': [layer.weight], 'orthogonal': True}, {'params': [layer.bias]}], lr=0.01)

    grads = torch.randn(6, 4, 3)
    layer, optimizer = make()
    for i, grad in enumerate(grads):
        if i == 3:
            saved = copy.deepcopy(optimizer.state_dict())
            weights = {name: value.clone() for name, value in layer.state_dict().items()}
        layer.weight.grad, layer.bias.grad = grad.clone(), grad.sum(1)
        optimizer.step()
    again, resumed = make()
    again.load_state_dict(weights)
    resumed.load_state_dict(saved)
    for grad in grads[3:]:
        again.weight.grad, again.bias.grad = grad.clone(), grad.sum(1)
        resumed.step()
    assert again.weight.equal(layer.weight) and again.bias.equal(layer.bias)


def farthest(make_optimizer):
    """From its target after 200 steps, on a quadratic with curvatures 1 and 1e-3 along turned axes."""
    turn = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    target = turn @ torch.diag(torch.tensor([1.5, 1.0]))
    curvature = turn @ torch.diag(torch.tensor([1.0, 1e-3])) @ turn.T
    weight = nn.Parameter(torch.zeros(2, 2))
    optimizer = make_optimizer(weight)
    for step in range(200):
        optimizer.param_groups[0]['lr'] = 0.1 * (1 - step / 200)
        optimizer.zero_grad()
        off = weight - target
        (off * (curvature @ off)).sum().backward()
        optimizer.step()
    return float((weight.detach() - target).abs().max())


def test_a_direction_with_small_gradients_is_learned():
    options = {'lr': 0.1, 'weight_decay': 0.0}
    assert farthest(lambda weight: MuonAdamW([{'params': [weight], 'orthogonal': True}], **options)) < 0.05
    assert farthest(lambda weight: torch.optim.SGD([weight], momentum=0.95, **options)) > 0.3
    assert farthest(lambda weight: torch.optim.AdamW([weight], **options)) > 0.2


def twins(**options):
    torch.manual_seed(0)
    layer = nn.Linear(3, 4)
    groups = [{'params': [layer.weight], 'orthogonal': True}, {'params': [layer.bias]}]
    return layer, MuonAdamW(groups, lr=0.01, fused=True, **options)


def test_scaled_gradients_are_taken_back():
    (plain, optimizer), (scaled, other) = twins(), twins()
    scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)
    x = torch.randn(5, 3)
    for _ in range(3):
        optimizer.zero_grad(), other.zero_grad()
        plain(x).square().mean().backward()
        optimizer.step()
        scaler.scale(scaled(x).square().mean()).backward()
        scaler.step(other)
        scaler.update()
    torch.testing.assert_close(scaled.state_dict(), plain.state_dict())
    # a step whose gradients are not finite is left out whole
    before = {name: value.clone() for name, value in scaled.state_dict().items()}
    scaled.weight.grad.fill_(torch.inf), scaled.bias.grad.fill_(1.0)
    scaler.step(other)
    torch.testing.assert_close(scaled.state_dict(), before, rtol=0, atol=0)


def test_closure_and_missing_gradients():
    layer, optimizer = twins()
    before = layer.weight.detach().clone()

    def closure():
        optimizer.zero_grad()
        loss = layer.bias.square().sum()
        loss.backward()
        return loss

    bias = layer.bias.detach().clone()
    loss = optimizer.step(closure)
    assert loss.item() == pytest.approx(bias.square().sum().item())
    assert layer.weight.equal(before) and not layer.bias.equal(bias)
    assert layer.weight not in optimizer.state


def test_half_precision_follows_single():
    (layer, optimizer), (half, other) = twins(), twins()
    half.to(torch.bfloat16)
    nn.init.zeros_(layer.weight), nn.init.zeros_(half.weight)
    grad = torch.randn(4, 3).bfloat16().float()
    layer.weight.grad, half.weight.grad = grad, grad.bfloat16()
    optimizer.step(), other.step()
    # the momentum and the sum are rounded to 8 bits, by 2**-8 at most; the products between them are not
    rounding = 2 * 2**-8 * layer.weight.abs().max().item()
    torch.testing.assert_close(half.weight.float(), layer.weight.detach(), rtol=0, atol=rounding)


@pytest.mark.parametrize('shape', [(8, 2), (2, 8), (5, 5)])
def test_updates_are_as_large_as_adamws(shape):
    torch.manual_seed(0)
    orthonormal, _ = torch.linalg.qr(torch.randn(max(shape), min(shape)))
    weight = nn.Parameter(torch.zeros(shape))
    optimizer = MuonAdamW([{'params': [weight], 'orthogonal': True}], lr=1.0, weight_decay=0.0)
    weight.grad = 1e-3 * (orthonormal if shape[0] >= shape[1] else orthonormal.T)
    optimizer.step()
    root_mean_square = weight.detach().square().mean().sqrt().item()
    assert 0.7 * 0.2 < root_mean_square < 1.25 * 0.2


def test_hooks_run_once():
    torch.optim.AdamW([nn.Parameter(torch.zeros(1))])  # wraps AdamW's step in the hooks
    layer, optimizer = twins()
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    layer.weight.grad, layer.bias.grad = torch.ones(4, 3), torch.ones(4)
    optimizer.step()
    assert calls == [1]


def test_a_copy_goes_on_alike():
    layer, optimizer = twins(momentum=0.5, ns_steps=2)
    other_layer, other = copy.deepcopy((layer, optimizer))
    for one, its in ((layer, optimizer), (other_layer, other)):
        one.weight.grad, one.bias.grad = torch.ones(4, 3), torch.ones(4)
        its.step()
    assert other_layer.weight.equal(layer.weight) and other_layer.bias.equal(layer.bias)
    assert not other_layer.weight.equal(twins()[0].weight)


def test_the_state_of_another_optimizer():
    layer, optimizer = twins()
    saved = torch.optim.AdamW([{'params': [layer.weight]}, {'params': [layer.bias]}]).state_dict()
    with pytest.raises(ValueError, match='the state is not of MuonAdamW'):
        optimizer.load_state_dict(saved)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Conv2d(4, 4, 3))
        self.head = nn.Linear(4, 2)


def test_groups_of_matrices():
    groups = parameter_groups(Model(), 1e-3, 0.1, lr_mult={'head': 10}, orthogonal=('body',))
    by_kind = {bool(group.get('orthogonal')): [] for group in groups}
    for group in groups:
        by_kind[bool(group.get('orthogonal'))] += group['names']
    # neither the embedding, nor the convolution of four axes, nor vectors, nor what is not named
    assert by_kind[True] == ['body.1.weight']
    assert len(by_kind[False]) == len(list(Model().parameters())) - 1


def build(optimizer, **paramwise):
    with_scope = {'constructor': 'florence_mm.NoDecayOptimWrapperConstructor', 'optimizer': optimizer}
    init_default_scope('florence_mm')
    return build_optim_wrapper(Model(), {**with_scope, 'paramwise_cfg': paramwise})


def test_built_from_a_config():
    wrapper = build({'type': 'MuonAdamW', 'lr': 1e-3, 'weight_decay': 0.1}, orthogonal=['body'], lr_mult={'head': 10})
    optimizer = wrapper.optimizer
    assert isinstance(optimizer, MuonAdamW)
    assert [g['lr'] for g in optimizer.param_groups if g['orthogonal']] == [1e-3]
    assert max(g['lr'] for g in optimizer.param_groups) == pytest.approx(1e-2)


@pytest.mark.parametrize(
    ('optimizer', 'paramwise', 'message'),
    [
        ({'type': 'AdamW', 'lr': 1e-3}, {'orthogonal': ['body']}, 'is for florence_mm.MuonAdamW; the optimizer is'),
        ({'type': 'MuonAdamW', 'lr': 1e-3}, {}, 'MuonAdamW got no matrices; name parts of the model'),
        ({'type': 'MuonAdamW', 'lr': 1e-3}, {'orthogonal': ['bodi']}, "did you mean 'body'"),
        ({'type': 'MuonAdamW', 'lr': 1e-3}, {'orthogonal': 'body'}, 'expected a list of parts of names'),
        ({'type': 'MuonAdamW', 'lr': 1e-3, 'momentum': 1.0}, {'orthogonal': ['body']}, 'momentum is 1.0'),
        ({'type': 'MuonAdamW', 'lr': 1e-3, 'maximize': True}, {'orthogonal': ['body']}, 'maximize is not supported'),
        ({'type': 'MuonAdamW', 'lr': 1e-3, 'ns_steps': 0}, {'orthogonal': ['body']}, 'ns_steps is 0'),
    ],
)
def test_what_cannot_be(optimizer, paramwise, message):
    with pytest.raises(ValueError, match=message):
        build(optimizer, **paramwise)


def test_a_group_that_is_no_matrix():
    with pytest.raises(ValueError, match=r'shape \(3,\); expected whole matrices'):
        MuonAdamW([{'params': [nn.Parameter(torch.zeros(3))], 'orthogonal': True}])


def several_matrices(share, shapes, steps):
    """Matrices and a vector after three steps; the second matrix gets a gradient in the last step alone."""
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    vector = nn.Parameter(torch.randn(5, generator=generator))
    groups = [
        {'params': [weight], 'orthogonal': True, 'ns_steps': count}
        for weight, count in zip(weights, steps, strict=True)
    ]
    optimizer = MuonAdamW([*groups, {'params': [vector]}], lr=0.1, weight_decay=0.1, share=share)
    for step in range(3):
        for place, weight in enumerate([*weights, vector]):
            grad = torch.randn(weight.shape, generator=generator)
            weight.grad = None if place == 1 and step < 2 else grad
        optimizer.step()
    return [weight.detach() for weight in (*weights, vector)]


def test_matrices_are_updated_in_pieces(monkeypatch):
    shapes, steps = [(4, 6), (3, 3), (6, 4), (4, 6), (2, 8)], [5, 5, 5, 5, 4]
    expected, seen = several_matrices(False, shapes, steps), []

    def recorded(matrices, count):
        seen.append(tuple(matrices.shape))
        return orthogonalize(matrices, count)

    monkeypatch.setattr(muon, 'orthogonalize', recorded)
    monkeypatch.setattr(muon, '_ELEMENTS_AT_ONCE', 40)
    for one, alone in zip(several_matrices(False, shapes, steps), expected, strict=True):
        torch.testing.assert_close(one, alone)
    # 24 + 9, 24, 24 + 16 numbers in the last step
    assert seen[-5:] == [(1, 4, 6), (1, 3, 3), (1, 6, 4), (1, 4, 6), (1, 2, 8)] and len(seen) == 4 + 4 + 5
    monkeypatch.setattr(muon, '_ELEMENTS_AT_ONCE', 1000)
    seen.clear()
    several_matrices(False, shapes, steps)
    assert seen[-4:] == [(2, 4, 6), (1, 3, 3), (1, 6, 4), (1, 2, 8)]


@pytest.mark.parametrize(
    ('shapes', 'steps', 'parts'),
    [
        # products of 1280, 405, 1280 and 168 multiplications; the second matrix is there in the last step alone
        (
            [(4, 6), (3, 3), (6, 4), (2, 8)],
            [5, 5, 5, 4],
            [[(4, 6), (2, 8), (4, 6), (2, 8), (4, 6), (3, 3)], [(6, 4), (6, 4), (6, 4), (2, 8)]],
        ),
        # one process has nothing to do in the first two steps
        ([(3, 3), (4, 6)], [5, 5], [[(3, 3), (3, 3), (4, 6)], [(3, 3)]]),
    ],
)
def test_processes_share_matrices(two_processes, tmp_path, monkeypatch, shapes, steps, parts):
    expected = several_matrices(False, shapes, steps)

    def work():
        torch.distributed.init_process_group('gloo')
        rank = torch.distributed.get_rank()
        seen = []

        def recorded(matrices, count):
            seen.extend([tuple(matrices.shape[1:])] * len(matrices))
            return orthogonalize(matrices, count)

        monkeypatch.setattr(muon, 'orthogonalize', recorded)
        torch.save((several_matrices(True, shapes, steps), seen), tmp_path / f'{rank}.pt')
        torch.distributed.destroy_process_group()

    two_processes(work)
    (first, first_seen), (second, second_seen) = (torch.load(tmp_path / f'{rank}.pt') for rank in range(2))
    assert [first_seen, second_seen] == parts
    for one, other, alone in zip(first, second, expected, strict=True):
        assert one.equal(other)
        torch.testing.assert_close(one, alone)


def test_sharing_alone_and_in_a_copy():
    shapes, steps = [(4, 6), (3, 3)], [5, 5]
    for one, other in zip(several_matrices(True, shapes, steps), several_matrices(False, shapes, steps), strict=True):
        assert one.equal(other)
    optimizer = MuonAdamW([{'params': [nn.Parameter(torch.eye(2))], 'orthogonal': True}], share=True)
    assert copy.deepcopy(optimizer).share and not MuonAdamW(optimizer.param_groups).share
