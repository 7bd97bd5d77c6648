"""Initialisation of a model that no process holds whole: each parameter is split as soon as its values are drawn.

A seeded initialisation draws random numbers in the order of the constructors and of ``init_weights``. To give the
values of an unsharded run on any number of processes, all of them run that code as it is, and draw all numbers; but a
parameter's memory is freed after use, apart from the rows of this process. A freed parameter that is read again, as by
a head that starts from text features, is gathered from all processes. Then the model is put on the meta device, sharded
there by ``fully_shard``, and given the rows.
"""

import math
import random
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from .host_memory import returning_freed_memory

_aten = torch.ops.aten
#: Operators that give all values of their first argument, whose former ones they do not read.
_OVERWRITING = {
    _aten.uniform_.default,
    _aten.normal_.default,
    _aten.zero_.default,
    _aten.fill_.Scalar,
    _aten.fill_.Tensor,
    _aten.copy_.default,
}
#: Operators that need neither values nor memory; other views look at the size of the memory.
_BY_NAME = {_aten.detach.default, _aten.alias.default}


@dataclass(eq=False)
class _Parameter:
    """Memory of a parameter.

    Attributes:
        whole: the tensor over all of its memory.
        nbytes: size of that memory while it is not freed.
        part: this process's rows of it while it is freed, otherwise None.
        mean: its mean while it is freed, for which mmengine asks after each step of an initialisation.
    """

    whole: Tensor
    nbytes: int
    part: Tensor | None = None
    mean: Tensor | None = None


class ShardedInit(TorchDispatchMode):
    """Context in which a model is built and initialised, with parameters that are split over all processes.

    All processes must run the same code with the same random numbers. Whole are the parameter in use, and small ones
    that were used last; 0-d ones and those whose memory cannot be freed stay so.

    Args:
        kept: bytes of parameters that stay whole beside the one in use.

    Attributes:
        peak: most bytes of parameters and their parts that this process held, those of a gather included.
    """

    def __init__(self, kept: int = 2**24) -> None:
        super().__init__()
        self.kept = kept
        self.rank, self.world = distributed.get_rank(), distributed.get_world_size()
        self.peak = 0
        self._in_whole = self._in_parts = 0  # bytes
        self._known: dict[int, _Parameter] = {}
        self._whole: OrderedDict[int, _Parameter] = OrderedDict()  # by last use
        self._parts: dict[str, Tensor] = {}
        self._handle: Any = None
        self._memory: Any = None

    def __enter__(self) -> 'ShardedInit':
        self._memory = returning_freed_memory(keep_afterwards=get_device() == 'cpu')
        self._memory.__enter__()
        self._handle = register_module_parameter_registration_hook(self._register)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._handle.remove()
        super().__exit__(*error)
        self._memory.__exit__(None, None, None)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run an operator, after gathering what it reads."""
        kwargs = kwargs or {}
        if func in _BY_NAME:
            return func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.layout is torch.strided]
        used = [(key, x) for key, x in ((_storage(x), x) for x in tensors) if key in self._known]
        if func is _aten.mean.default and used and self._known[used[0][0]].mean is not None:
            known = self._known[used[0][0]]
            if used[0][1].shape == known.whole.shape and not kwargs:
                return known.mean.clone()
        for key, x in used:
            known = self._known[key]
            if known.part is not None:
                fresh = func in _OVERWRITING and x is args[0] and x.shape == known.whole.shape and len(used) == 1
                self._free({key for key, _ in used}, self.kept)
                self._make_whole(key, gather=not fresh)
            self._whole.move_to_end(key)
        return func(*args, **kwargs)

    def to(self, model: nn.Module, device: torch.device | str) -> None:
        """Move a model that was built here, one parameter at a time."""
        self._free(set(), 0)
        for parameter in model.parameters():
            known = self._known.pop(_storage(parameter), None)
            if known is not None and parameter.shape == known.whole.shape:
                parameter.data = torch.empty_like(parameter, device=device)
                known.whole, known.part = parameter.detach(), known.part.to(device)
                known.mean = known.mean.to(device)
                parameter.untyped_storage().resize_(0)
            if known is not None:
                self._known[_storage(known.whole)] = known
        model.to(device)

    def to_meta(self, model: nn.Module) -> None:
        """Put the parameters of the model on the meta device, and keep this process's parts for :meth:`fill`."""
        self._free(set(), 0)
        with self:
            for name, parameter in model.named_parameters():
                known = self._known.get(_storage(parameter))
                if known is not None and known.part is not None and parameter.shape == known.whole.shape:
                    self._parts[name] = known.part
                else:
                    self._parts[name] = self._part(parameter.detach().contiguous())
        self._known.clear()
        self._whole.clear()
        made: dict[int, nn.Parameter] = {}  # one for a parameter with several names
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is None:
                    continue
                if id(parameter) not in made:
                    # contiguous ones: FSDP2 splits no others, such as kernels with their channels last
                    meta = torch.empty_like(parameter, device='meta', memory_format=torch.contiguous_format)
                    made[id(parameter)] = nn.Parameter(meta, parameter.requires_grad)
                    made[id(parameter)].__dict__.update(parameter.__dict__)
                module._parameters[name] = made[id(parameter)]

    def fill(self, model: nn.Module) -> None:
        """Give the parts to a model that ``fully_shard`` has sharded on the meta device."""
        parts = {id(parameter): self._parts.pop(name) for name, parameter in model.named_parameters()}

        def give(x: Tensor) -> Tensor:
            if id(x) not in parts:
                return x
            part = parts.pop(id(x))
            return DTensor.from_local(
                part, x.device_mesh, x.placements, run_check=False, shape=x.shape, stride=x.stride()
            )

        model._apply(give)

    def _register(self, module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is None or parameter.ndim == 0 or not parameter.is_contiguous() or parameter.is_meta:
            return
        storage, key = parameter.untyped_storage(), _storage(parameter)
        if (
            key in self._known
            or not storage.resizable()
            or storage.nbytes() != parameter.nbytes
            or not storage.nbytes()
        ):
            return
        self._known[key] = self._whole[key] = _Parameter(parameter.detach(), storage.nbytes())
        self._in_whole += storage.nbytes()
        with _disable_current_modes():
            self._free({key}, self.kept)

    def _part(self, whole: Tensor) -> Tensor:
        """This process's rows, as ``fully_shard`` takes them."""
        parts = whole.chunk(self.world)
        return (parts[self.rank] if self.rank < len(parts) else whole[:0]).clone()

    def _free(self, used: set[int], limit: int) -> None:
        """Free what was used longest ago until at most ``limit`` bytes beside what is in use are whole."""
        self._count()
        beside = [key for key in self._whole if key not in used]
        left = sum(self._whole[key].nbytes for key in beside)
        for key in beside:
            if left <= limit:
                return
            left -= self._whole[key].nbytes
            known = self._whole.pop(key)
            known.part = self._part(known.whole)
            known.mean = known.whole.mean() if known.whole.is_floating_point() else None
            self._in_parts += known.part.nbytes
            self._count()
            known.whole.untyped_storage().resize_(0)
            self._in_whole -= known.nbytes

    def _make_whole(self, key: int, gather: bool) -> None:
        known = self._known[key]
        part, known.part, known.mean = known.part, None, None
        known.whole.untyped_storage().resize_(known.nbytes)
        self._whole[key] = known
        self._in_whole += known.nbytes
        self._in_parts -= part.nbytes
        if not gather:
            return
        rows = math.ceil(len(known.whole) / self.world)
        mine = part.new_zeros(rows, *part.shape[1:])
        mine[: len(part)] = part
        even = rows * self.world == len(known.whole)
        every = known.whole if even else part.new_empty(rows * self.world, *part.shape[1:])
        self._count(part.nbytes + mine.nbytes + (0 if even else every.nbytes))
        # as bytes, since not every backend knows every type
        distributed.all_gather_into_tensor(every.view(-1).view(torch.uint8), mine.view(-1).view(torch.uint8))
        if not even:
            known.whole.copy_(every[: len(known.whole)])

    def _count(self, more: int = 0) -> None:
        self.peak = max(self.peak, self._in_whole + self._in_parts + more)


@contextmanager
def as_on_rank_0() -> Iterator[None]:
    """Draw the random numbers of the first process; others with a state of their own have it back afterwards."""
    own = random.getstate(), np.random.get_state(), torch.get_rng_state()
    first = [own]
    broadcast_object_list(first)
    _set_state(first[0])
    yield
    if not torch.equal(own[2], first[0][2]):
        _set_state(own)


def _set_state(state: tuple) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata
