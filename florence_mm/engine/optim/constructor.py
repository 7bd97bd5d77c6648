"""Which parameters decay, and how fast each part learns."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn

from florence_mm.models.protocol import NamesNoDecay, unwrap_model
from florence_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from florence_mm.utils.nearest import did_you_mean

from .muon import MuonAdamW

#: Names, whole between dots, of parameters or modules that do not decay whatever their shape.
NO_DECAY = (
    'relative_position_bias_table',
    'absolute_pos_embed',
    'pos_embed',
    'positional_embedding',
    'token_embedding',
    'cls_token',
    'logit_scale',
)
_OPTIONS = ('no_decay', 'decay_vectors', 'lr_mult', 'decay_mult', 'orthogonal')


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    no_decay: Sequence[str] = NO_DECAY,
    decay_vectors: bool = False,
    lr_mult: dict[str, float] | None = None,
    decay_mult: dict[str, float] | None = None,
    orthogonal: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Trainable parameters by learning rate and weight decay, and for MuonAdamW by kind.

    A parameter does not decay if it has at most one axis (biases, norms, layer scales, the temperature), if it is
    of an ``nn.Embedding``, if a part of its name is in ``no_decay``, or if a module's ``no_weight_decay()`` names
    it. This is the intent of the public UniCL and MedImageInsight code, of which the former's skip list misses
    its own names.

    Args:
        model: without a distributed wrapper.
        lr: learning rate of parameters without a factor.
        weight_decay: weight decay of parameters without a factor.
        no_decay: parts of names, whole between dots, of parameters that do not decay.
        decay_vectors: let parameters of at most one axis decay too.
        lr_mult: factors of the learning rate by one or more parts of the name, whole between dots, wherever they are
            in it, e.g. ``{'image_encoder': 0.1, 'relative_position_bias_table': 2.5}``; the longest that fits counts.
        decay_mult: factors of the weight decay, by parts of the name as in ``lr_mult``.
        orthogonal: parts of the name, as in ``lr_mult``; decaying parameters of two axes that have one get groups of
            their own.

    Returns:
        One dict a group with ``params``, ``lr``, ``weight_decay`` and ``names``, in the order of the model; with
        ``orthogonal=True`` where it is so.

    Raises:
        ValueError: parts of a name in ``lr_mult``, ``decay_mult`` or ``orthogonal`` that no parameter has.
    """
    names = [name for name, _ in model.named_parameters()]
    lr_mult, decay_mult, orthogonal = lr_mult or {}, decay_mult or {}, orthogonal or ()
    if isinstance(orthogonal, str):
        raise ValueError(f'paramwise_cfg.orthogonal is {orthogonal!r}; expected a list of parts of names')
    for option, parts in (('lr_mult', lr_mult), ('decay_mult', decay_mult), ('orthogonal', orthogonal)):
        for part in parts:
            _check_part(part, names, f'paramwise_cfg.{option}')
    exempt = _exempt_by_module(model)
    groups: dict[tuple[float, float, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = (
            name not in exempt and not set(name.split('.')) & set(no_decay) and (decay_vectors or parameter.ndim > 1)
        )
        settings = (
            lr * _longest_match(lr_mult, name),
            weight_decay * _longest_match(decay_mult, name) if decays else 0.0,
            decays and parameter.ndim == 2 and any(_has(name, part) for part in orthogonal),
        )
        group = groups.setdefault(settings, {'params': [], 'lr': settings[0], 'weight_decay': settings[1], 'names': []})
        if settings[2]:
            group['orthogonal'] = True
        group['params'].append(parameter)
        group['names'].append(name)
    return list(groups.values())


def _exempt_by_module(model: nn.Module) -> set[str]:
    """Names of embeddings and of what modules themselves say does not decay."""
    exempt = set()
    for prefix, module in model.named_modules():
        own: Iterable[str] = ()
        if isinstance(module, nn.Embedding):
            own = ('weight',)
        elif isinstance(module, NamesNoDecay):
            own = module.no_weight_decay()
        exempt.update(f'{prefix}.{name}' if prefix else name for name in own)
    return exempt


def _has(name: str, part: str) -> bool:
    return f'.{part}.' in f'.{name}.'


def _longest_match(factors: dict[str, float], name: str) -> float:
    return factors[max(fits, key=len)] if (fits := [part for part in factors if _has(name, part)]) else 1.0


def _check_part(part: str, names: list[str], option: str) -> None:
    if any(_has(name, part) for name in names):
        return
    depth = part.count('.') + 1
    known = {'.'.join(name.split('.')[:depth]) for name in names}
    hint = did_you_mean(part, known, f'; names begin with {", ".join(sorted(known)[:8])}')
    raise ValueError(f'{option} names {part!r}, which is in no name of a parameter{hint}')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NoDecayOptimWrapperConstructor:
    """Optimizer wrapper over :func:`parameter_groups`; few groups, so that fused optimizers stay fast.

    Config::

        optim_wrapper = dict(
            constructor='florence_mm.NoDecayOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.1),
            paramwise_cfg=dict(lr_mult={'image_encoder': 0.1}),
        )

    Args:
        optim_wrapper_cfg: config of the wrapper, with ``optimizer``.
        paramwise_cfg: options of :func:`parameter_groups`: ``no_decay``, ``decay_vectors``, ``lr_mult``,
            ``decay_mult``, ``orthogonal``.

    Raises:
        ValueError: no optimizer or learning rate, an unknown option, or ``orthogonal`` for an optimizer that does
            not know it.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        self.wrapper_cfg = dict(optim_wrapper_cfg)
        self.optimizer_cfg = dict(self.wrapper_cfg.pop('optimizer', None) or {})
        self.options = dict(paramwise_cfg or {})
        if 'type' not in self.optimizer_cfg or 'lr' not in self.optimizer_cfg:
            raise ValueError('optim_wrapper.optimizer must be a dict with type and lr')
        for key in self.options:
            if key not in _OPTIONS:
                hint = did_you_mean(key, _OPTIONS, f'; known are {", ".join(_OPTIONS)}')
                raise ValueError(f'paramwise_cfg has an unknown key {key!r}{hint}')

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build for a model, wrapped for distribution or not."""
        model = unwrap_model(model)
        cfg = self.optimizer_cfg
        groups = parameter_groups(model, cfg['lr'], cfg.get('weight_decay', 0.0), **self.options)
        if not groups:
            raise ValueError('the model has no parameter that requires a gradient; nothing is left to train')
        for group in groups:
            names = group.pop('names')
            print_log(
                f'{len(names)} parameters ({sum(p.numel() for p in group["params"]):,} numbers) with '
                f'lr {group["lr"]:g} and weight decay {group["weight_decay"]:g}'
                f'{", orthogonalized" if "orthogonal" in group else ""}: {names[0]}, ...',
                'current',
                logging.INFO,
            )
        optimizer = OPTIMIZERS.build({**cfg, 'params': groups})
        if self.options.get('orthogonal') and not isinstance(optimizer, MuonAdamW):
            kind = type(optimizer).__name__
            raise ValueError(f'paramwise_cfg.orthogonal is for florence_mm.MuonAdamW; the optimizer is {kind}')
        return OPTIM_WRAPPERS.build({'type': 'OptimWrapper', **self.wrapper_cfg}, default_args={'optimizer': optimizer})
