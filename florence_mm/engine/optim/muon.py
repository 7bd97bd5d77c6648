"""Muon for matrices beside AdamW for all else, as one optimizer."""

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from florence_mm.registry import OPTIMIZERS

# of the odd polynomial a x + b x^3 + c x^5, of which five steps take singular values from 0.002 on to about 0.7 to 1.2
# and multiply smaller ones by up to 3.4445^5 (Jordan et al., "Muon: an optimizer for hidden layers in neural
# networks", 2024)
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# the root mean square that AdamW's updates have ("Muon is scalable for LLM training", arXiv 2502.16982, section 2.2)
_ADAMW_RMS = 0.2
# numbers that are updated at once: there are several copies of them meanwhile
_AT_ONCE = 2**26


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Replace all singular values by about 1, by Newton and Schulz' iteration.

    Args:
        matrices: ``(N, rows, columns)``, whose scale makes no difference above norms of 1e-7.
        steps: of the iteration.

    Returns:
        ``(N, rows, columns)`` with the same singular vectors; a matrix of zeros stays as it is.
    """
    a, b, c = _COEFFICIENTS
    upright = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if upright else matrices  # the products below are of the smaller side
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    if _is_long(x.shape[1], x.shape[2], x.dtype == torch.float32):
        x = _whole_polynomial(x @ x.mT, steps) @ x
    else:
        for _ in range(steps):
            gram = x @ x.mT
            x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.mT if upright else x


def _is_long(small: int, large: int, exact: bool) -> bool:
    """Whether it is cheaper to iterate on the matrix times its transpose alone, which takes 32 bits."""
    return exact and 2 * large >= 3 * small


def _whole_polynomial(gram: Tensor, steps: int) -> Tensor:
    """What all steps together multiply a matrix by, from the matrix times its transpose.

    A step multiplies x by p = a + b x xT + c (x xT)^2, and so x xT by p from both sides. All of them are polynomials of
    one matrix, whose order in a product makes no difference.

    Args:
        gram: ``(N, rows, rows)``.
        steps: of the iteration.
    """
    a, b, c = _COEFFICIENTS
    whole = None
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        whole = factor if whole is None else factor @ whole
        if step < steps - 1:
            gram = factor @ gram @ factor
    return whole


@OPTIMIZERS.register_module()
class MuonAdamW(AdamW):
    """Orthogonalized momentum for groups of matrices, AdamW for the others.

    Updates of matrices are made nearly orthogonal, so that directions whose gradients are small, down to about a
    thousandth of the largest, are learned almost as fast as the others. They have the root mean square of AdamW's:
    one learning rate serves both kinds, and decay works alike. A fused projection (query, key, value) is one matrix.
    ``torch.optim.Muon`` takes matrices only and works in bfloat16, which CPUs without units for it emulate; here a
    CPU's products are of 32 bits, and equal shapes are one batch.

    Config::

        optim_wrapper = dict(
            constructor='florence_mm.NoDecayOptimWrapperConstructor',
            optimizer=dict(type='florence_mm.MuonAdamW', lr=1e-3, weight_decay=0.05),
            paramwise_cfg=dict(orthogonal=('image_encoder', 'cross_modal')),
        )

    Args:
        params: groups, of which those with ``orthogonal=True`` hold matrices.
        momentum: of the matrices.
        ns_steps: steps of :func:`orthogonalize`.
        share: each process of a distributed run orthogonalizes a part of the matrices, and all exchange what they got.
            For processes that have the same gradients, as those of ``DistributedDataParallel``, with all matrices of
            a process on one device; every process still holds the whole state. Alone it makes no difference.
        **options: of :class:`torch.optim.AdamW` but ``maximize``, ``capturable`` and ``differentiable``; ``lr`` and
            ``weight_decay`` are of the matrices too.

    Raises:
        ValueError: no group is to be orthogonalized, or one that is holds anything but whole matrices; an option
            out of its range or not known here; a state of another optimizer is loaded.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        momentum: float = 0.95,
        ns_steps: int = 5,
        share: bool = False,
        **options: Any,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f'momentum is {momentum}; expected 0 to below 1')
        if ns_steps < 1:
            raise ValueError(f'ns_steps is {ns_steps}; expected at least 1')
        for name in ('maximize', 'capturable', 'differentiable'):
            if options.get(name):
                raise ValueError(f'{name} is not supported by MuonAdamW; leave it out')
        # "momentum" is a key that schedulers of betas write to
        own = {'orthogonal': False, 'matrix_momentum': momentum, 'ns_steps': ns_steps}
        super().__init__([{**own, **group} for group in params], **options)
        self.defaults.update(own)
        self.share = share
        # a scaler is to take its factor out of the gradients before step(), also where AdamW is fused
        self._step_supports_amp_scaling = False
        if not any(group['orthogonal'] for group in self.param_groups):
            raise ValueError(
                'MuonAdamW got no matrices; name parts of the model in paramwise_cfg.orthogonal of '
                'florence_mm.NoDecayOptimWrapperConstructor, or use AdamW'
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), 'share': self.share}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As the base class does; groups with ``orthogonal=True`` must hold whole matrices."""
        super().add_param_group(param_group)
        added = self.param_groups[-1]
        for parameter in added['params'] if added['orthogonal'] else ():
            if parameter.ndim != 2 or isinstance(parameter, DTensor):
                kind = 'a sharded parameter' if isinstance(parameter, DTensor) else 'a parameter'
                raise ValueError(
                    f'a group with orthogonal=True has {kind} of shape {tuple(parameter.shape)}; expected whole '
                    'matrices; leave it out of paramwise_cfg.orthogonal'
                )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state of this optimizer."""
        if any('orthogonal' not in group for group in state_dict['param_groups']):
            raise ValueError(
                'the state is not of MuonAdamW; resume with the optimizer that wrote it, or load its weights alone'
            )
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._step_matrices()
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group['orthogonal']]
        try:
            # torch may have wrapped AdamW's step in the hooks that this step is wrapped in already
            inspect.unwrap(AdamW.step)(self)
        finally:
            self.param_groups = groups
        return loss

    def _step_matrices(self) -> None:
        members = [
            (parameter, group)
            for group in self.param_groups
            if group['orthogonal']
            for parameter in group['params']
            if parameter.grad is not None
        ]
        shared = self.share and distributed.is_available() and distributed.is_initialized()
        for piece in _pieces(members):
            ahead = [self._nesterov(parameter, group['matrix_momentum']) for parameter, group in piece]
            steps = [group['ns_steps'] for _, group in piece]
            updates = (_orthogonalize_in_parts if shared else _orthogonalize_alike)(ahead, steps)
            for (parameter, group), update in zip(piece, updates, strict=True):
                rms = _ADAMW_RMS * max(parameter.shape) ** 0.5  # an orthogonal matrix has 1 / sqrt(larger side)
                parameter.mul_(1 - group['lr'] * group['weight_decay'])
                parameter.add_(update.to(parameter.dtype), alpha=-group['lr'] * rms)

    def _nesterov(self, parameter: Tensor, momentum: float) -> Tensor:
        """The mean of past gradients, one step ahead."""
        state = self.state[parameter]
        if 'momentum_buffer' not in state:
            # AdamW's load_state_dict asks every state for its number of steps
            state['step'] = torch.zeros(())
            state['momentum_buffer'] = torch.zeros_like(parameter)
        state['step'] += 1
        mean = state['momentum_buffer'].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(mean, momentum)


_Member = tuple[Tensor, dict[str, Any]]  # a matrix and its group


def _pieces(members: Sequence[_Member]) -> list[list[_Member]]:
    """Matrices in their order, as many together as have ``_AT_ONCE`` numbers, at least one."""
    pieces: list[list[_Member]] = []
    size = _AT_ONCE
    for parameter, group in members:
        if size + parameter.numel() > _AT_ONCE:
            pieces.append([])
            size = 0
        pieces[-1].append((parameter, group))
        size += parameter.numel()
    return pieces


def _orthogonalize_alike(matrices: Sequence[Tensor], steps: Sequence[int]) -> list[Tensor]:
    """:func:`orthogonalize` of each, those of one shape, device and number of steps together."""
    alike: dict[tuple, list[int]] = defaultdict(list)
    for place, (matrix, count) in enumerate(zip(matrices, steps, strict=True)):
        alike[matrix.shape, matrix.device, count].append(place)
    made: dict[int, Tensor] = {}
    for (_, device, count), places in alike.items():
        batch = torch.stack([matrices[place] for place in places])
        batch = batch.float() if device.type == 'cpu' else batch.bfloat16()
        made.update(zip(places, orthogonalize(batch, count), strict=True))
    return [made[place] for place in range(len(matrices))]


def _orthogonalize_in_parts(matrices: Sequence[Tensor], steps: Sequence[int]) -> list[Tensor]:
    """As :func:`_orthogonalize_alike`, each process a part, of matrices that are the same in all processes."""
    parts = _split_evenly([_cost(matrix, count) for matrix, count in zip(matrices, steps, strict=True)])
    own = parts[distributed.get_rank()]
    made = _orthogonalize_alike([matrices[place] for place in own], [steps[place] for place in own])
    sizes = [sum(matrices[place].numel() for place in part) for part in parts]
    # a process may have none, where there are fewer matrices than processes; CPUs compute in 32 bits, others in 16
    kind = torch.float32 if matrices[0].device.type == 'cpu' else torch.bfloat16
    sent = torch.zeros(max(sizes), dtype=kind, device=matrices[0].device)
    if own:
        torch.cat([update.flatten() for update in made], out=sent[: sizes[distributed.get_rank()]])
    received = [torch.empty_like(sent) for _ in parts]
    distributed.all_gather(received, sent)
    updates: dict[int, Tensor] = {}
    for part, flat, size in zip(parts, received, sizes, strict=True):
        shapes = [matrices[place].shape for place in part]
        for place, shape, piece in zip(part, shapes, flat[:size].split([s.numel() for s in shapes]), strict=True):
            updates[place] = piece.view(shape)
    return [updates[place] for place in range(len(matrices))]


def _cost(matrix: Tensor, steps: int) -> int:
    """Multiplications of :func:`orthogonalize`."""
    small, large = sorted(matrix.shape)
    if _is_long(small, large, matrix.device.type == 'cpu'):
        return small * small * (2 * large + (4 * steps - 3) * small)
    return steps * small * small * (2 * large + small)


def _split_evenly(costs: Sequence[int]) -> list[list[int]]:
    """Places of ``costs``, a list for each process: the most expensive first, to whom has least."""
    parts: list[list[int]] = [[] for _ in range(distributed.get_world_size())]
    loads = [0] * len(parts)
    for place in sorted(range(len(costs)), key=lambda place: -costs[place]):
        least = loads.index(min(loads))
        parts[least].append(place)
        loads[least] += costs[place]
    return parts
