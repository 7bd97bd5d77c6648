import gc

import pytest
import torch
from torch import nn

import florence_mm.ops.inference as snapshot_module
from florence_mm.ops.inference import WeightsSnapshot

LARGE = (300, 100)  # more numbers than are kept whole
SMALL = (7, 3)


def weights(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(shape, generator=generator))


class Changes:
    """Ways in which a parameter comes to differ; each gives what stands in its place."""

    def in_place(p):
        with torch.no_grad():
            p[-1].mul_(0.5)
        return p

    def optimizer_step(p):
        p.grad = torch.ones_like(p)
        torch.optim.SGD([p], 0.1).step()
        return p

    def load_state_dict(p):
        module = nn.Module()
        module.weight = p
        module.load_state_dict({'weight': p.detach() + 1})
        return p

    def load_by_assignment(p):
        module = nn.Module()
        module.weight = p
        module.load_state_dict({'weight': p.detach() + 1}, assign=True)
        return module.weight

    def averaged(p):
        p.data.mul_(2)
        return p

    def copied_over(p):
        p.data.copy_(p.data.flip(-1))
        return p

    def rows_exchanged(p):
        p.data.copy_(p.data.flip(0))
        return p

    def one_number(p):
        p.data.view(-1)[-1] += 1e-6
        return p

    def one_bit(p):
        p.data.view(-1)[3:4].view(torch.int32).bitwise_xor_(1)
        return p

    def exchanged_memory(p):
        p.data = torch.zeros_like(p)
        return p

    def dtype(p):
        return p.double()

    def half(p):
        p.data = p.data.half()
        return p

    def shape(p):
        return nn.Parameter(p.detach().t())

    def device(p):
        return p.to('meta')


@pytest.mark.parametrize('change', [name for name in vars(Changes) if not name.startswith('_')])
@pytest.mark.parametrize('shape', [LARGE, SMALL])
def test_changed_weights_do_not_match(shape, change):
    others, changed = [weights((5,), 1), weights(LARGE, 2)], weights(shape)
    snapshot = WeightsSnapshot([*others, changed])
    assert snapshot.matches([*others, changed])
    assert not snapshot.matches([*others, getattr(Changes, change)(changed)])


@pytest.mark.parametrize('shape', [LARGE, SMALL, (), (0, 3), (4097, 5)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16, torch.int8, torch.bool])
def test_unchanged_weights_match(shape, dtype):
    tensor = weights(shape).detach().to(dtype)
    for same in (tensor, tensor[..., 1:] if tensor.ndim else tensor, tensor.t() if tensor.ndim == 2 else tensor):
        snapshot = WeightsSnapshot([same])
        assert snapshot.matches([same]) and snapshot.matches(iter([same]))
        assert not snapshot.matches([]) and not snapshot.matches([same, same])


def test_the_last_bytes_count():
    """Sums are of 255 words of 8 bytes; what is left over is summed too."""
    for numbers in (16385, 33 * 2 * 255 + 2 * 255 + 3):
        for position in (0, numbers // 2, numbers - 3, numbers - 2, numbers - 1):
            tensor = torch.zeros(numbers)
            snapshot = WeightsSnapshot([tensor])
            tensor.data[position] = 1
            assert not snapshot.matches([tensor])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_signs_count_wherever_they_stand(dtype):
    """The highest bits of a sum modulo 2**64 are lost where they come an even number of times."""
    for numbers in (17000, 64 * 512, 65 * 510):
        tensor = weights((numbers,)).detach().to(dtype)
        writes = [slice(place, place + 1) for place in (0, 513, 1537, numbers // 2 + 1, numbers - 1)]
        for write in (*writes, slice(None), slice(1, None, 2), slice(1, None, 4)):
            snapshot = WeightsSnapshot([tensor])
            tensor.data[write] *= -1
            assert not snapshot.matches([tensor])


def test_memory_that_does_not_start_at_a_word():
    memory = torch.zeros(20001)
    view = memory[1:]
    snapshot = WeightsSnapshot([view])
    assert snapshot.matches([view])
    memory.data[1] = 1
    assert not snapshot.matches([view])


def test_a_new_tensor_in_the_place_of_an_old_one():
    for shape in (SMALL, LARGE):
        old = weights(shape)
        snapshot, place = WeightsSnapshot([old]), (id(old), old.data_ptr())
        del old
        gc.collect()
        for _ in range(100):
            new = weights(shape, 3)
            assert not snapshot.matches([new])
            if (id(new), new.data_ptr()) == place:
                break
            del new


def test_tensors_of_inference_mode():
    with torch.inference_mode():
        for shape in (SMALL, LARGE):
            tensor = torch.zeros(shape)
            snapshot = WeightsSnapshot([tensor])
            assert snapshot.matches([tensor])
            tensor[0, 0] = 1
            assert not snapshot.matches([tensor])


def test_tensors_without_values():
    tensor = torch.zeros(SMALL, device='meta')
    snapshot = WeightsSnapshot([tensor])
    assert snapshot.matches([tensor]) and not snapshot.matches([torch.zeros(SMALL, device='meta')])
    tensor.add_(1)
    assert not snapshot.matches([tensor])

    class Wrapped(torch.Tensor):
        pass

    tensor = torch.zeros(SMALL).as_subclass(Wrapped)
    snapshot = WeightsSnapshot([tensor])
    assert snapshot.matches([tensor])
    tensor.add_(1)
    assert not snapshot.matches([tensor])


def test_large_tensors_are_not_kept(monkeypatch):
    snapshot = WeightsSnapshot([weights(LARGE), weights(SMALL)])
    assert [part is not None for part in snapshot._small] == [False, True] and len(snapshot._sums) == 1
    # elsewhere than on the CPU no tensor is compared by itself: each would wait for the device
    monkeypatch.setattr(snapshot_module, '_is_small', lambda weight: False)
    tensor = weights(SMALL)
    snapshot = WeightsSnapshot([tensor])
    tensor.data[0, 0] += 1e-6
    assert snapshot._small == [None] and not snapshot.matches([tensor])
