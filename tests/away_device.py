"""A device that needs no hardware and counts what would make the processor wait for it.

Its tensors hold tensors of the CPU, and compute with them, but say that they are on a GPU (within torch on ``meta``,
as there may be no GPU). Whatever would wait for a GPU is counted by the line that asks for it: numbers read from a
tensor, sizes that depend on values (``nonzero``, ``unique``, masks as indices), and copies in either direction that are
not ``non_blocking``. Other operations between the two devices are errors, as with a GPU.
"""

import sys
import warnings
from collections import Counter, OrderedDict
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

from florence_mm.ops import windows

AWAY = torch.device('meta')
NAMED = torch.device('cuda', 0)
aten = torch.ops.aten
_SIZED_BY_VALUES = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.bincount.default,
    aten.equal.default,
    aten._local_scalar_dense.default,
}
_INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
_READS = {
    getattr(torch.Tensor, name)
    for name in ('item', 'tolist', '__bool__', '__int__', '__float__', '__index__', '__len__', '__contains__')
} - {torch.Tensor.__len__}


class AwayTensor(torch.Tensor):
    """A tensor of the device; ``held`` is the tensor of the CPU that it stands for."""

    # what code in Python sees, except torch's own
    within_torch = False
    device = property(lambda self: AWAY if AwayTensor.within_torch else NAMED)
    is_cuda, is_meta = True, False

    @staticmethod
    def __new__(cls, held, requires_grad=False):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=AWAY,
            requires_grad=requires_grad,
        )

    def __init__(self, held, requires_grad=False):
        self.held = held

    def __repr__(self):
        return f'AwayTensor({self.held})'

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {}, _count=lambda what: None)


def send(x):
    """Bring a tensor of the CPU to the device."""
    return AwayTensor(x) if isinstance(x, torch.Tensor) and not isinstance(x, AwayTensor) else x


def _held(x):
    return x.held if isinstance(x, AwayTensor) else x


def _is_host(x):
    return isinstance(x, torch.Tensor) and not isinstance(x, AwayTensor)


def _run(func, args, kwargs, _count):
    leaves = tree_leaves((args, kwargs))
    away = any(isinstance(x, AwayTensor) for x in leaves)
    device = kwargs.get('device')
    to_away = device is not None and torch.device(device).type == AWAY.type
    if not away and not to_away:
        return func(*args, **kwargs)
    if func is aten._to_copy.default:
        lands = away if device is None else to_away
        if lands != away and not kwargs.get('non_blocking'):
            _count('copy to the device' if lands else 'copy to the CPU')
        out = func(_held(args[0]), **{**kwargs, 'device': torch.device('cpu'), 'non_blocking': False})
        return send(out) if lands else out
    if func is aten.copy_.default:
        target, source, *rest = args
        across = isinstance(target, AwayTensor) != isinstance(source, AwayTensor) and not (rest and rest[0])
        if across and (source.ndim or isinstance(source, AwayTensor)):
            _count('copy between the devices')
        _held(target).copy_(_held(source))
        return target
    if func in _SIZED_BY_VALUES:
        _count(func.name().removeprefix('aten::'))
    elif func is aten.repeat_interleave.Tensor and kwargs.get('output_size') is None:
        _count('repeat_interleave')
    elif func in _INDEXING:
        for index in args[1]:
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                _count('a mask as index')
            elif _is_host(index):
                _count('an index of the CPU')
    elif away and any(_is_host(x) and x.ndim for x in leaves):
        raise RuntimeError(f'{func} got tensors of the device and of the CPU')
    kwargs = {**kwargs, **({'device': torch.device('cpu')} if to_away else {})}
    if 'pin_memory' in kwargs:
        kwargs['pin_memory'] = False
    out = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    if device is not None and not to_away:
        return out
    out = tree_map(send, out)
    return return_and_correct_aliasing(func, args, kwargs, out) if away else out


class _Dispatch(TorchDispatchMode):
    def __init__(self, count):
        super().__init__()
        self.count = count

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {}, self.count)


@contextmanager
def _seen(within_torch):
    before, AwayTensor.within_torch = AwayTensor.within_torch, within_torch
    try:
        yield
    finally:
        AwayTensor.within_torch = before


def _inside(x):
    """The device by the name that torch knows."""
    return AWAY if isinstance(x, torch.device) and x.type == NAMED.type else x


class _Functions(TorchFunctionMode):
    """Calls that torch does not dispatch on ``meta``: numbers read, and tensors made from lists."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def __torch_function__(self, func, types, args=(), kwargs=None):
        args, kwargs = tree_map(_inside, args), tree_map(_inside, kwargs or {})
        kwargs.pop('pin_memory', None)  # needs a GPU
        if func in _READS and isinstance(args[0], AwayTensor):
            self.count(func.__name__)
            return func(args[0].held, *args[1:], **kwargs)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], AwayTensor):
            args = (args[0], tree_map(self._index, args[1], is_leaf=lambda x: isinstance(x, list)), *args[2:])
        device = kwargs.get('device')
        if func is torch.Tensor.new_tensor and isinstance(args[0], AwayTensor) and device is None:
            device = AWAY
        makes = func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)
        if makes and device is not None and torch.device(device).type == AWAY.type:
            data = args[-1]
            if isinstance(data, torch.Tensor):
                return data.to(NAMED, kwargs.get('dtype'))
            self.count(func.__name__)
            return send(torch.tensor(data, dtype=kwargs.get('dtype')))
        with _seen(True):
            return func(*args, **kwargs)

    def _index(self, index):
        if not isinstance(index, list):
            return index
        self.count('a list as index')
        return send(torch.tensor(index))


class _Copied:
    """Event of the device: a copy is over at once."""

    def __init__(self, device):
        assert device == NAMED

    def record(self):
        """Mark the place."""

    def synchronize(self):
        """Wait for nothing."""


class AwayDevice:
    """Count what waits for the device.

    Attributes:
        waits: how often, by package, place and what waits.
    """

    def __init__(self):
        self.waits = Counter()
        self._stack = ExitStack()

    def __enter__(self):
        self._stack.enter_context(patch.object(torch, 'Event', _Copied))
        # autocast, off or on, warns without a GPU
        self._stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings('ignore', "User provided device_type of 'cuda'")
        fused = 'torch.optim.optimizer._get_fused_kernels_supported_devices'
        self._stack.enter_context(patch(fused, lambda: [NAMED.type, 'cpu']))
        self._stack.enter_context(patch.object(torch.autograd, '_engine_run_backward', self._run_backward))
        # plans of windows are cached, but not those of tensors that stand for others
        for name, own in (('Tensor', AwayTensor), ('_cache', OrderedDict()), ('_indices', OrderedDict())):
            self._stack.enter_context(patch.object(windows, name, own))
        self._stack.enter_context(_Functions(self._count))
        self._stack.enter_context(_Dispatch(self._count))
        return self

    def __exit__(self, *error):
        self._stack.close()

    def _run_backward(self, *args, **kwargs):
        """Run a backward pass, which calls functions of ours, as from outside torch."""
        with _seen(False), _Functions(self._count):
            return _engine_run_backward(*args, **kwargs)

    def bring(self, model):
        """Bring the parameters and buffers of a model to the device, in place, as optimizers hold them."""
        for tensor in (*model.parameters(), *model.buffers()):
            moved = AwayTensor(tensor.detach(), tensor.requires_grad)
            if isinstance(tensor, torch.nn.Parameter):
                moved = torch.nn.Parameter(moved, tensor.requires_grad)
            torch.utils.swap_tensors(tensor, moved)
        for module in model.modules():
            if hasattr(module, '_device'):  # mmengine's data preprocessors
                module._device = NAMED

    def _count(self, what):
        frame = sys._getframe(1)
        while frame is not None:
            path = frame.f_code.co_filename
            package = frame.f_globals.get('__name__', '').partition('.')[0]
            if package not in ('torch', __name__, 'contextlib'):
                break
            frame = frame.f_back
        place = '/'.join(path.rsplit('/', 2)[-2:])
        self.waits[package, f'{place}:{frame.f_lineno}', what] += 1

    def of(self, *packages):
        """What was counted in these packages."""
        return {key[1:]: count for key, count in self.waits.items() if key[0] in packages}
