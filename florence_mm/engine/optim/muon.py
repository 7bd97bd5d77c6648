"""One optimizer with Muon for matrices and AdamW for all other parameters."""

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from florence_mm.registry import OPTIMIZERS

# coefficients of a x + b x^3 + c x^5: five steps move singular values from 0.002 on to about 0.7 to 1.2, and multiply
# smaller ones by up to 3.4445^5 (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024)
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# root mean square of AdamW's updates ("Muon is scalable for LLM training", arXiv 2502.16982, section 2.2)
_ADAMW_RMS = 0.2
# elements that are updated together, which takes several copies of them
_ELEMENTS_AT_ONCE = 2**26


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Replace all singular values by about 1, by the Newton-Schulz iteration.

    Args:
        matrices: ``(N, rows, columns)``; their scale does not matter above a norm of 1e-7.
        steps: number of iterations.

    Returns:
        ``(N, rows, columns)`` with the same singular vectors; a matrix of zeros stays zero.
    """
    a, b, c = _COEFFICIENTS
    upright = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if upright else matrices  # the products below are of the smaller side
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    if _is_long(x.shape[1], x.shape[2], x.dtype == torch.float32):
        x = _combined_factor(x @ x.mT, steps) @ x
    else:
        for _ in range(steps):
            gram = x @ x.mT
            x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.mT if upright else x


def _is_long(small: int, large: int, exact: bool) -> bool:
    """Whether it is cheaper to iterate only on the matrix times its transpose, which needs fp32."""
    return exact and 2 * large >= 3 * small


def _combined_factor(gram: Tensor, steps: int) -> Tensor:
    """Compute the factor by which all steps together multiply a matrix, from the matrix times its transpose.

    A step multiplies x by p = a + b x xT + c (x xT)^2, and hence x xT by p from both sides. All factors are polynomials
    of the same matrix and commute.

    Args:
        gram: ``(N, rows, rows)``.
        steps: number of iterations.
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
    """Optimizer with Muon (orthogonalized momentum) for groups of matrices and AdamW for the other groups.

    Updates of matrices are made nearly orthogonal, so that directions with small gradients, down to about a thousandth
    of the largest, are learned almost as fast as the others. They are scaled to the root mean square of AdamW's
    updates, so that one learning rate and weight decay suit both. A fused projection (query, key, value) is one matrix.
    ``torch.optim.Muon`` takes only matrices and computes in bfloat16, which many CPUs emulate; this computes in fp32 on
    a CPU, and matrices of equal shape as one batch.

    Config::

        optim_wrapper = dict(
            constructor='florence_mm.NoDecayOptimWrapperConstructor',
            optimizer=dict(type='florence_mm.MuonAdamW', lr=1e-3, weight_decay=0.05),
            paramwise_cfg=dict(orthogonal=('image_encoder', 'cross_modal')),
        )

    Args:
        params: parameter groups; those with ``orthogonal=True`` must have only matrices.
        momentum: momentum of Muon.
        ns_steps: iterations of :func:`orthogonalize`.
        share: let each process of a distributed run orthogonalize a part of the matrices, and exchange the results.
            Processes must have the same gradients, as with ``DistributedDataParallel``, and all matrices of a process
            must be on one device; every process still has the whole state. No effect with one process.
        **options: options of :class:`torch.optim.AdamW` except ``maximize``, ``capturable`` and ``differentiable``;
            ``lr`` and ``weight_decay`` also apply to Muon.

    Raises:
        ValueError: no group has ``orthogonal=True``, or such a group has anything but whole matrices; an option is out
            of range or unsupported; the state of another optimizer is loaded.
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
        # not "momentum", a key that schedulers of betas change
        own = {'orthogonal': False, 'matrix_momentum': momentum, 'ns_steps': ns_steps}
        super().__init__([{**own, **group} for group in params], **options)
        self.defaults.update(own)
        self.share = share
        # a gradient scaler must unscale gradients before step(), also if AdamW is fused
        self._step_supports_amp_scaling = False
        if not any(group['orthogonal'] for group in self.param_groups):
            raise ValueError(
                'MuonAdamW got no matrices; name parts of the model in paramwise_cfg.orthogonal of '
                'florence_mm.NoDecayOptimWrapperConstructor, or use AdamW'
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), 'share': self.share}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; one with ``orthogonal=True`` must have only whole matrices."""
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
        """Load a state of this optimizer."""
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
            # torch may have wrapped AdamW's step in hooks that already wrap this step
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
            updates = (_orthogonalize_distributed if shared else _orthogonalize_batched)(ahead, steps)
            for (parameter, group), update in zip(piece, updates, strict=True):
                rms = _ADAMW_RMS * max(parameter.shape) ** 0.5  # an orthogonal matrix has 1 / sqrt(larger side)
                parameter.mul_(1 - group['lr'] * group['weight_decay'])
                parameter.add_(update.to(parameter.dtype), alpha=-group['lr'] * rms)

    def _nesterov(self, parameter: Tensor, momentum: float) -> Tensor:
        """Update the momentum buffer and return Nesterov's momentum."""
        state = self.state[parameter]
        if 'momentum_buffer' not in state:
            # AdamW's load_state_dict reads the number of steps of every state
            state['step'] = torch.zeros(())
            state['momentum_buffer'] = torch.zeros_like(parameter)
        state['step'] += 1
        mean = state['momentum_buffer'].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(mean, momentum)


_Member = tuple[Tensor, dict[str, Any]]  # a matrix and its group


def _pieces(members: Sequence[_Member]) -> list[list[_Member]]:
    """Group consecutive matrices to at most ``_ELEMENTS_AT_ONCE`` elements, at least one matrix."""
    pieces: list[list[_Member]] = []
    size = _ELEMENTS_AT_ONCE
    for parameter, group in members:
        if size + parameter.numel() > _ELEMENTS_AT_ONCE:
            pieces.append([])
            size = 0
        pieces[-1].append((parameter, group))
        size += parameter.numel()
    return pieces


def _orthogonalize_batched(matrices: Sequence[Tensor], steps: Sequence[int]) -> list[Tensor]:
    """Orthogonalize matrices, those of the same shape, device and number of steps as one batch."""
    alike: dict[tuple, list[int]] = defaultdict(list)
    for place, (matrix, count) in enumerate(zip(matrices, steps, strict=True)):
        alike[matrix.shape, matrix.device, count].append(place)
    made: dict[int, Tensor] = {}
    for (_, device, count), places in alike.items():
        batch = torch.stack([matrices[place] for place in places])
        batch = batch.float() if device.type == 'cpu' else batch.bfloat16()
        made.update(zip(places, orthogonalize(batch, count), strict=True))
    return [made[place] for place in range(len(matrices))]


def _orthogonalize_distributed(matrices: Sequence[Tensor], steps: Sequence[int]) -> list[Tensor]:
    """Orthogonalize matrices that are equal in all processes, each process a part of them."""
    parts = _split_evenly([_cost(matrix, count) for matrix, count in zip(matrices, steps, strict=True)])
    own = parts[distributed.get_rank()]
    made = _orthogonalize_batched([matrices[place] for place in own], [steps[place] for place in own])
    sizes = [sum(matrices[place].numel() for place in part) for part in parts]
    # a process may have none if there are fewer matrices than processes; CPUs compute in fp32, others in bf16
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
    """Number of multiplications of :func:`orthogonalize`."""
    small, large = sorted(matrix.shape)
    if _is_long(small, large, matrix.device.type == 'cpu'):
        return small * small * (2 * large + (4 * steps - 3) * small)
    return steps * small * small * (2 * large + small)


def _split_evenly(costs: Sequence[int]) -> list[list[int]]:
    """Distribute indices of ``costs`` over processes: the most expensive first, each to the least loaded process."""
    parts: list[list[int]] = [[] for _ in range(distributed.get_world_size())]
    loads = [0] * len(parts)
    for place in sorted(range(len(costs)), key=lambda place: -costs[place]):
        least = loads.index(min(loads))
        parts[least].append(place)
        loads[least] += costs[place]
    return parts
