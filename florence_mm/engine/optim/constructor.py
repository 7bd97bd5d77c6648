"""Parameter groups: weight decay and learning rate by parts of a model."""

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

#: Names of parameters or modules (whole parts between dots) without weight decay.
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
    """Group trainable parameters by learning rate and weight decay, and for MuonAdamW by kind.

    A parameter has no weight decay if it has at most one axis (biases, norms, layer scales, the temperature), if it
    belongs to an ``nn.Embedding``, if a part of its name is in ``no_decay``, or if ``no_weight_decay()`` of a module
    lists it. This is the intent of the public UniCL and MedImageInsight code, although UniCL's skip list does not match
    its own names.

    Args:
        model: the model without distributed wrapper.
        lr: learning rate of parameters without a factor in ``lr_mult``.
        weight_decay: weight decay of parameters without a factor in ``decay_mult``.
        no_decay: parts of names, whole between dots, without weight decay.
        decay_vectors: apply weight decay also to parameters of at most one axis.
        lr_mult: factors of the learning rate by parts of names, e.g. ``{'image_encoder': 0.1,
            'relative_position_bias_table': 2.5}``. A part is one or more whole names between dots, anywhere in the
            parameter's name; the longest that matches is used.
        decay_mult: factors of the weight decay by parts of names, matched as in ``lr_mult``.
        orthogonal: parts of names, matched as in ``lr_mult``; their parameters with two axes and weight decay get
            separate groups.

    Returns:
        One dict per group with ``params``, ``lr``, ``weight_decay`` and ``names``, in the order of the model; those for
        ``orthogonal`` with ``orthogonal=True``.

    Raises:
        ValueError: no parameter matches a part in ``lr_mult``, ``decay_mult`` or ``orthogonal``.
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
            decays and parameter.ndim == 2 and any(_has_part(name, part) for part in orthogonal),
        )
        group = groups.setdefault(settings, {'params': [], 'lr': settings[0], 'weight_decay': settings[1], 'names': []})
        if settings[2]:
            group['orthogonal'] = True
        group['params'].append(parameter)
        group['names'].append(name)
    return list(groups.values())


def _exempt_by_module(model: nn.Module) -> set[str]:
    """Names of embedding weights and of parameters in ``no_weight_decay()`` of modules."""
    exempt = set()
    for prefix, module in model.named_modules():
        own: Iterable[str] = ()
        if isinstance(module, nn.Embedding):
            own = ('weight',)
        elif isinstance(module, NamesNoDecay):
            own = module.no_weight_decay()
        exempt.update(f'{prefix}.{name}' if prefix else name for name in own)
    return exempt


def _has_part(name: str, part: str) -> bool:
    return f'.{part}.' in f'.{name}.'


def _longest_match(factors: dict[str, float], name: str) -> float:
    return factors[max(fits, key=len)] if (fits := [part for part in factors if _has_part(name, part)]) else 1.0


def _check_part(part: str, names: list[str], option: str) -> None:
    if any(_has_part(name, part) for name in names):
        return
    depth = part.count('.') + 1
    known = {'.'.join(name.split('.')[:depth]) for name in names}
    hint = did_you_mean(part, known, f'; names begin with {", ".join(sorted(known)[:8])}')
    raise ValueError(f'{option} names {part!r}, which is in no name of a parameter{hint}')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NoDecayOptimWrapperConstructor:
    """Build the optimizer wrapper with :func:`parameter_groups`; they are few, so that fused optimizers are fast.

    Config::

        optim_wrapper = dict(
            constructor='florence_mm.NoDecayOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.1),
            paramwise_cfg=dict(lr_mult={'image_encoder': 0.1}),
        )

    Args:
        optim_wrapper_cfg: config of the optimizer wrapper, with ``optimizer``.
        paramwise_cfg: options of :func:`parameter_groups`: ``no_decay``, ``decay_vectors``, ``lr_mult``,
            ``decay_mult``, ``orthogonal``.

    Raises:
        ValueError: the optimizer or its learning rate is missing, an option is unknown, or ``orthogonal`` is given for
            another optimizer than MuonAdamW.
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
        """Build the optimizer wrapper of a model, with or without distributed wrapper."""
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
