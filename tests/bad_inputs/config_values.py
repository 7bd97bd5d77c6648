"""Bad inputs: values, keys and pairs of settings in a config."""

import copy
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config

from florence_mm.config.check import check_whole_config
from florence_mm.config.load import load_config
from florence_mm.config.merge import check_options, merge_options

from .case import ROOT, BadInput

AREA = 'config values'
NAN, INF = math.nan, math.inf
LOADER, OPTIMIZER = 'train_dataloader', 'optim_wrapper.optimizer'
MODEL, ENCODER = 'model', 'model.image_encoder'
STEP = f'{LOADER}.dataset.pipeline'

#: Values that each key does not take, by what is wrong with them.
WHOLE = {'text': '8', 'negative': -2, '0': 0, 'a fraction': 2.5, 'NaN': NAN, 'a list': [8], 'None': None}
FROM_0 = {'text': '8', 'negative': -2, 'a fraction': 2.5, 'NaN': NAN, 'a list': [8], 'a dict': {'n': 8}}
REAL = {'text': '0.1', 'negative': -0.1, 'NaN': NAN, 'infinite': INF, 'a list': [0.1], 'None': None}
SHARE = {**REAL, 'above 1': 1.5, 'True': True}
SWITCH = {'text': 'yes', 'a number': 1, 'None': None}
KINDS = {'text': 'x', 'a number': 3, 'a list': ['x']}
VALUES: dict[str, dict[str, Any]] = {
    f'{LOADER}.batch_size': {key: WHOLE[key] for key in WHOLE if key != 'None'},
    f'{LOADER}.num_workers': FROM_0,
    f'{LOADER}.drop_last': SWITCH,
    f'{LOADER}.dataset': {**KINDS, 'None': None},
    'val_dataloader.batch_size': {key: WHOLE[key] for key in WHOLE if key != 'None'},
    'train_cfg.max_epochs': {key: WHOLE[key] for key in WHOLE if key != 'a fraction'},
    'train_cfg.val_interval': {key: WHOLE[key] for key in WHOLE if key != 'a fraction'},
    f'{OPTIMIZER}.lr': REAL,
    f'{OPTIMIZER}.weight_decay': REAL,
    f'{OPTIMIZER}.eps': REAL,
    f'{OPTIMIZER}.betas': {
        'one number': 0.9,
        'above 1': (0.9, 1.5),
        'texts': ('0.9', '0.99'),
        'three': (0.9, 0.9, 0.9),
    },
    'optim_wrapper.accumulative_counts': {'text': '2', 'negative': -1, 'a fraction': 1.5},
    'optim_wrapper.clip_grad': KINDS,
    'optim_wrapper.clip_grad.max_norm': {key: REAL[key] for key in REAL if key != 'None'},
    'param_scheduler.LinearLR.start_factor': {**SHARE, '0': 0.0},
    'param_scheduler.LinearLR.begin': REAL,
    'param_scheduler.CosineAnnealingLR.eta_min': {key: REAL[key] for key in REAL if key != 'None'},
    f'{MODEL}.embed_dims': WHOLE,
    f'{ENCODER}.img_size': WHOLE | {'a list': ['32', '32']},
    f'{ENCODER}.patch_size': {key: WHOLE[key] for key in WHOLE if key != 'None'},
    f'{ENCODER}.window_size': {key: WHOLE[key] for key in WHOLE if key != 'None'},
    f'{ENCODER}.drop_path_rate': {**SHARE, 'exactly 1': 1.0},
    f'{ENCODER}.drop_rate': SHARE,
    f'{ENCODER}.out_indices': {'empty': [], 'a number': 2, 'texts': ['2'], 'a text': '2'},
    f'{ENCODER}.with_cp': SWITCH,
    f'{MODEL}.text_encoder.vocab_size': WHOLE,
    f'{MODEL}.text_encoder.context_length': WHOLE,
    f'{MODEL}.text_encoder': {'None': None, 'text': 'x', 'a number': 3},
    f'{STEP}.RandomAffineImage.max_rotate': REAL,
    f'{STEP}.RandomAffineImage.max_translate': SHARE,
    f'{STEP}.RandomAffineImage.scale': {'a number': 0.9, '0': (0, 1), 'texts': ('1', '2'), 'NaN': (NAN, 1.0)},
    f'{STEP}.RandomPrompt.prob': {**SHARE},
    f'{STEP}.RandomPrompt.max_words': {key: FROM_0[key] for key in FROM_0},
    f'{STEP}.LoadImage.keep_mb': REAL,
    'default_hooks.checkpoint.interval': {'text': '1', 'a fraction': 0.5, 'NaN': NAN, 'a list': [1]},
    'default_hooks.checkpoint.max_keep_ckpts': {'text': '3', 'below -1': -2, 'a fraction': 1.5},
    'default_hooks.logger.interval': WHOLE,
    'default_hooks.invalid_loss.patience': WHOLE,
    'randomness.seed': {'text': '1', 'negative': -1, 'beyond numpy': 2**32, 'a fraction': 0.5},
    'val_evaluator.ZeroShotAccuracy.topk': {'text': '5', 'a number': 5, 'texts': ['1'], '0': [0], 'empty': []},
    'env_cfg.cudnn_benchmark': SWITCH,
    'model': {**KINDS, 'None': None},
    'custom_hooks': {'a dict': {'type': 'EMAHook'}, 'text': 'EMAHook', 'texts': ['EMAHook']},
    'load_from': {'a number': 3, 'a list': ['x.pth']},
    'compile': {'text': 'fast', 'a number': 3},
    'log_level': {'a word': 'LOUD', 'None': None},
    'default_scope': {'a number': 3, 'unknown': 'no_such_package', 'a path': 'a.b/c'},
    'runner_type': {'unknown': 'Foo', 'a number': 3},
    'launcher': {'unknown': 'ssh'},
    'resume': SWITCH,
    'smoke': {'a number': 3},
    LOADER: {**KINDS, 'None': None},
    'val_cfg': {'None': None, 'text': 'x'},
    'val_evaluator': {'None': None, 'a number': 3},
    'optim_wrapper': {'None': None, 'text': 'x'},
    'test_cfg': {'None': None},
}
#: Changes of the config, and what the sentence says.
CHANGES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    'clip_grad: maxnorm': ({'optim_wrapper.clip_grad.maxnorm': 1.0}, ('maxnorm', 'max_norm')),
    'clip_grad: unknown type': ({'optim_wrapper.clip_grad': {'type': 'sum', 'max_norm': 1}}, ('sum', 'norm')),
    'clip_grad: only a type': ({'optim_wrapper.clip_grad': {'_delete_': True, 'type': 'norm'}}, ('clip_grad',)),
    'checkpoint: intervall': ({'default_hooks.checkpoint.intervall': 1}, ('intervall', "'interval'")),
    'checkpoint: unknown rule': (
        {'default_hooks.checkpoint.rule': 'biggest', 'default_hooks.checkpoint.save_best': 'auto'},
        ('biggest', 'greater'),
    ),
    'EMA: momentun': ({'custom_hooks': [{'type': 'EMAHook', 'momentun': 0.1}]}, ('momentun', "'momentum'")),
    'EMA: momentum 7': ({'custom_hooks': [{'type': 'EMAHook', 'momentum': 7}]}, ('momentum', '7')),
    'dist_cfg: backnd': ({'env_cfg.dist_cfg.backnd': 'gloo'}, ('backnd', "'backend'")),
    'mp_cfg: start': ({'env_cfg.mp_cfg.mp_start_metod': 'fork'}, ('mp_start_metod', 'mp_start_method')),
    'type is a number': ({f'{ENCODER}.type': 3}, ('image_encoder.type', '3')),
    'type is None': ({'optim_wrapper.optimizer.type': None}, ('optimizer.type', 'None')),
    'a hook without type': ({'custom_hooks': [{'interval': 3}]}, ('custom_hooks.0', 'type', 'interval')),
    'a step without type': ({STEP: [{'keep_mb': 1}]}, ('pipeline.0', 'type', 'keep_mb')),
    'a step that is a text': ({STEP: ['florence_mm.LoadImage']}, ('pipeline', 'LoadImage')),
    'no steps': ({STEP: []}, ('pipeline', 'empty')),
    'an image encoder that only another package has': ({f'{ENCODER}.type': 'ResNet'}, ('ResNet', 'image_encoder')),
    'persistent workers without workers': (
        {f'{LOADER}.persistent_workers': True},
        ('persistent_workers', 'num_workers'),
    ),
    'prefetch without workers': ({f'{LOADER}.prefetch_factor': 4}, ('prefetch_factor', 'num_workers')),
    'a time limit without workers': ({'val_dataloader.timeout': 9}, ('val_dataloader.timeout', 'num_workers')),
    'a schedule that ends before it begins': (
        {'param_scheduler.CosineAnnealingLR.end': 1},
        ('param_scheduler.1', '1', '2'),
    ),
    'iterations and a checkpoint hook of epochs': (
        {'train_cfg': {'_delete_': True, 'by_epoch': False, 'max_iters': 9}, 'param_scheduler': None},
        ('default_hooks.checkpoint', 'by_epoch=False'),
    ),
    'iterations and a schedule of epochs': (
        {
            'train_cfg': {'_delete_': True, 'by_epoch': False, 'max_iters': 9},
            'default_hooks.checkpoint.by_epoch': False,
            'param_scheduler.LinearLR.convert_to_iter_based': False,
        },
        ('param_scheduler.0', 'by_epoch=False'),
    ),
    'iterations and an average from an epoch on': (
        {
            'train_cfg': {'_delete_': True, 'by_epoch': False, 'max_iters': 9},
            'default_hooks.checkpoint.by_epoch': False,
            'param_scheduler': None,
            'custom_hooks': [{'type': 'EMAHook', 'begin_epoch': 2}],
        },
        ('custom_hooks.0.begin_epoch', 'begin_iter'),
    ),
    'answers are scored on image-text data': (
        {'val_evaluator': [{'type': 'VQAAccuracy'}]},
        ('VQAAccuracy', 'questions'),
    ),
    'boxes are scored on image-text data': ({'val_evaluator': [{'type': 'DetectionMetric'}]}, ('boxes', 'texts')),
    'UniCL on detection data': (
        {f'{LOADER}.dataset': {'_delete_': True, 'type': 'DetectionDataset', 'ann_file': 'x.json'}},
        ('UniCL', 'DetectionDataset'),
    ),
    'a backend of a package that is not there': (
        {'visualizer': {'type': 'Visualizer', 'vis_backends': [{'type': 'NeptuneVisBackend'}]}},
        ('visualizer.vis_backends.0', 'neptune'),
    ),
}
#: Values that look odd and are right.
RIGHT: dict[str, dict[str, Any]] = {
    'a whole number as learning rate': {f'{OPTIMIZER}.lr': 1},
    'iterations as 1e1': {
        'train_cfg': {'_delete_': True, 'by_epoch': False, 'max_iters': 1e1},
        'default_hooks.checkpoint.by_epoch': False,
        'param_scheduler': None,
    },
    'no checkpoints': {'default_hooks.checkpoint.interval': -1},
    'a hook turned off': {'default_hooks.run_summary': None},
    'an infinite norm': {'optim_wrapper.clip_grad.norm_type': INF},
    'a fraction of an epoch': {'param_scheduler.LinearLR.end': 0.5, 'param_scheduler.CosineAnnealingLR.begin': 0.5},
    'workers and what they take': {
        f'{LOADER}.num_workers': 1,
        f'{LOADER}.persistent_workers': True,
        f'{LOADER}.prefetch_factor': 2,
    },
}


@functools.cache
def _config() -> Config:
    return load_config(ROOT / 'configs/unicl/unicl_coswin-micro_1xb64-36e_digits.py')


def _checked(changes: dict[str, Any]) -> Callable[[Path], str]:
    def run(folder: Path) -> str:
        cfg = copy.deepcopy(_config())
        for key, value in changes.items():
            _set(cfg, key, value)
        check_whole_config(cfg)
        return 'accepted'

    return run


def _set(cfg: Config, key: str, value: Any) -> None:
    """Put a value in, whatever it replaces; dicts are merged."""
    if isinstance(value, dict):
        merge_options(cfg, {key: value})
        return
    merge_options(cfg, {f'{holder}.put_in' if (holder := key.rpartition('.')[0]) else 'put_in': 0})
    node: Any = cfg._cfg_dict
    for part in key.split('.')[:-1]:
        node = node[part] if isinstance(node, dict) else next(i for i in node if i['type'].endswith(part))
    del node['put_in']
    node[key.rpartition('.')[2]] = value


def _option(key: str, value: Any) -> Callable[[Path], str]:
    def run(folder: Path) -> str:
        cfg = copy.deepcopy(_config())
        check_options(cfg, {key: value})
        merge_options(cfg, {key: value})
        check_whole_config(cfg)
        return 'accepted'

    return run


OPTIONS: dict[str, tuple[str, Any, tuple[str, ...]]] = {
    'an item beyond a list': ('param_scheduler.7.begin', 1, ('7', 'list of 2')),
    'an item beyond the other end': ('param_scheduler.-3.begin', 1, ('-3', 'list of 2')),
    'a key below a number': ('model.embed_dims.x', 3, ('model.embed_dims', '64')),
    'a dict for a number': ('model.embed_dims', {'x': 3}, ('model.embed_dims', '64')),
    'a text for a dict': ('model', 'x', ('model', "'x'")),
    'no value': ('model.embed_dims', '', ('model.embed_dims', 'whole number')),
    'code': ('model.embed_dims', '2*32', ('model.embed_dims', '2*32')),
    'a new key': ('batchsize', 3, ('batchsize',)),
}


def cases() -> list[BadInput]:
    """All rows."""
    # the forks inherit the imports of a check
    check_whole_config(_config())
    rows = [
        BadInput(f'{key}: {what}', _checked({key: value}), says=key.split('.')[-1])
        for key, bad in VALUES.items()
        for what, value in bad.items()
    ]
    rows += [BadInput(words, _checked(changes), says=says) for words, (changes, says) in CHANGES.items()]
    rows += [BadInput(words, _checked(changes), gives='accepted') for words, changes in RIGHT.items()]
    rows += [BadInput(f'--cfg-options: {words}', _option(*two), says=says) for words, (*two, says) in OPTIONS.items()]
    rows.append(
        BadInput('--cfg-options: from the end', _option('param_scheduler.-1.eta_min', 0.0), gives='accepted'),
    )
    return rows
