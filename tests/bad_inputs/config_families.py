"""Bad inputs: values in configs of all families: heads, necks, transforms, samplers, hooks, metrics, optimizers."""

import copy
import functools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict

from florence_mm.config.check import check_whole_config
from florence_mm.config.load import load_config

from .case import ROOT, BadInput

AREA = 'configs of all families'
FILES = {
    'UniCL': 'unicl/unicl_coswin-micro_1xb64-36e_digits.py',
    'detector': 'dynamic_head/atss_coswin-micro_fpn_dyhead_2xb4-8e_scenes.py',
    'recognizer': 'video_coswin/video_coswin-micro_2xb5-3e_clips.py',
    'METER': 'meter/meter_coswin-micro_2xb64-6e_large-digit-vqa.py',
    'video retrieval': 'video_retrieval/unicl_video-coswin-micro_2xb20-4e_clips.py',
}
LOADER, VAL, STEPS = 'train_dataloader', 'val_dataloader', 'train_dataloader.dataset.pipeline'
WRAPPER, ADAM, SAVE = 'optim_wrapper', 'optim_wrapper.optimizer', 'default_hooks.checkpoint'


LAMBDA = lambda value: value  # noqa: E731
#: Kinds that are no setting anywhere.
NO_SETTING = {
    'a set': {1, 2},
    'a frozen set': frozenset({'a'}),
    'bytes': b'8',
    'a complex number': 1j,
    'a lambda': LAMBDA,
    'NaN of numpy': np.float64('nan'),
}
EVERYWHERE = {
    'UniCL': ('model.embed_dims', 'model.image_encoder.out_indices', f'{LOADER}.batch_size', f'{ADAM}.betas'),
    'detector': ('model.neck.in_channels', 'model.bbox_head.anchor_generator.ratios', 'model.test_cfg.score_thr'),
    'recognizer': ('model.cls_head.dropout_ratio', 'model.data_preprocessor.mean', f'{STEPS}.1.clip_len'),
    'METER': ('model.fusion.num_layers', 'model.heads.vqa.answers', f'{WRAPPER}.paramwise_cfg.lr_mult'),
    'video retrieval': (f'{VAL}.dataset.classes', 'val_evaluator.topk'),
}
#: Values by family and key, with what the sentence says besides the key.
VALUES: dict[str, dict[str, list[Any]]] = {
    'UniCL': {
        'model.embed_dims': [np.float32(64.5), Fraction(1, 2), np.array([64]), True, '6_4'],
        'model.image_encoder.depths': ['2222', [2, '2'], {'stage': 2}],
        'model.tokenizer.vocab_size': [np.int64(-1), 0.5, [4096]],
        'model.data_preprocessor.mean': ['0.5', [0.5, 'x', 0.5]],
        'model.data_preprocessor.std': [[0.0, 1.0, 1.0], [-1.0] * 3],
        f'{LOADER}.sampler': ['ResumableSampler', 3, [], True],
        f'{LOADER}.sampler.shuffle': ['no', 1, None],
        f'{LOADER}.num_workers': [10**30, 10_000, np.float64(1.5)],
        f'{LOADER}.pin_memory': ['True', 1],
        f'{LOADER}.prefetch_factor': [0, -1, '2'],
        f'{LOADER}.timeout': [-1, '9'],
        'train_cfg.by_epoch': ['False', 1, None, []],
        'train_cfg.dynamic_intervals': [[(1, 0)], ['x'], 3],
        'train_cfg.val_begin': [-1, '1'],
        f'{WRAPPER}.constructor': [-3, ['x'], {'a': 1}, 'NoSuchConstructor'],
        f'{WRAPPER}.paramwise_cfg': ['x', [1], 3],
        f'{WRAPPER}.paramwise_cfg.lr_mult': [{'image_encoder': -1}, {'image_encoder': 'x'}, 2.0, ['image_encoder']],
        f'{WRAPPER}.paramwise_cfg.decay_vectors': ['yes', 1],
        f'{ADAM}.fused': ['yes', 2],
        f'{ADAM}.amsgrad': ['True', 0],
        'default_hooks.timer': ['x', 3, [], True, int],
        'default_hooks.logger': ['LoggerHook', 2.5],
        f'{SAVE}.interval': [0, -2],
        f'{SAVE}.filename_tmpl': ['a.pth', '{name}.pth', '{}_{}.pth', 3],
        f'{SAVE}.save_best': [3, {'a': 1}],
        f'{SAVE}.out_dir': [3, ['a']],
        'custom_hooks': [[3], [None], [['EMAHook']], [{}]],
        'param_scheduler': [['x'], [3], [[{'type': 'LinearLR'}]], [{}], 3],
        'param_scheduler.0.by_epoch': ['False', 1],
        'log_processor.window_size': ['10', 0, [3], {'loss': 3}],
        'log_processor.by_epoch': ['x', 1],
        'env_cfg.mp_cfg.mp_start_method': ['x', 'Fork', 3, None],
        'env_cfg.mp_cfg.opencv_num_threads': [10**30, -2, '4'],
        'env_cfg.dist_cfg.backend': ['ncl', '', 3],
        'env_cfg.dist_cfg.timeout': ['1800', -5],
        'randomness': [None, 3, 'x'],
        'randomness.deterministic': ['yes', 1],
        'activation_checkpointing': [3, {'blocks': 2}, [1]],
        'efficient_conv_bn_eval': [True, 3],
        'sync_bn': ['x', True],
        'model_wrapper_cfg': ['x', 3],
        'default_scope': ['', ' ', 'mmdetection'],
        'val_evaluator': [['ZeroShotAccuracy'], [3], [None], {'topk': (1,)}],
        'visualizer.vis_backends': [['LocalVisBackend'], [{}], [3]],
        f'{VAL}.sampler': [{'type': 'mmengine.InfiniteSampler'}],
    },
    'detector': {
        'model.test_cfg.score_thr': [1.5, -0.1],
        'model.test_cfg.max_per_img': [0, -3],
        'model.test_cfg.nms_pre': [0, -5],
        'model.test_cfg.nms.type': ['nmss', 'exec', 3],
        'model.test_cfg.nms.iou_threshold': [2, -1],
        'model.data_preprocessor.pad_size_divisor': [0, -16, '16'],
        'model.data_preprocessor.std': [[0, 0, 0]],
        'model.bbox_head.num_blocks': [0, '2', [2], None],
        'model.neck.num_outs': [0, -1, 'two'],
        'model.bbox_head.loss_cls.loss_weight': [-1.0],
        'val_evaluator.type': [3, None, ''],
    },
    'recognizer': {
        'model.cls_head.num_classes': ['nine'],
        'model.cls_head.dropout_ratio': [1.5, -0.5],
        'model.backbone.merge_temporal_kernel': [0, '3', {'t': 3}],
        f'{STEPS}.1.clip_len': [0, -8],
        f'{STEPS}.1.frame_interval': [0, -2],
        f'{STEPS}.1.num_clips': [0],
        'val_evaluator': [[{'type': 'mmaction.AccMetrics'}]],
    },
    'METER': {
        'model.text_encoder.tower.vocab_size': ['4096', True, [4096], None],
        'model.text_encoder.tower.context_length': [0, '77'],
        f'{ADAM}.lr': ['1e-3', -1.0, None, [1e-3]],
        f'{ADAM}.betas': ['x', 0.9, (0.9, 1.5)],
        f'{ADAM}.weight_decay': ['x', -1],
        f'{ADAM}.ns_steps': [0, '5', 2.5],
        f'{ADAM}.momentum': ['x', -0.5],
        f'{WRAPPER}.paramwise_cfg.orthogonal': ['heads', 3, [3]],
        'model.fusion.num_heads': [0, -4, 'x'],
        'model.max_text_len': [0, '20'],
    },
    'video retrieval': {
        f'{STEPS}.1.clip_len': [0],
        'model.image_encoder.patch_size': [(0, 4, 4), '4'],
        'param_scheduler.1.T_max': [0, '4'],
    },
}
#: Unusual and right.
RIGHT: dict[str, dict[str, list[Any]]] = {
    'UniCL': {
        'model.embed_dims': [np.int64(64)],
        f'{ADAM}.lr': [np.float32(0.001), Fraction(1, 1000)],
        f'{ADAM}.betas': [[0.9, 0.999]],
        f'{WRAPPER}.paramwise_cfg': [None, {}, {'lr_mult': {'image_encoder': 0}}],
        'default_hooks.timer': [None],
        'custom_hooks': [None, []],
        'param_scheduler': [None, []],
        f'{SAVE}.interval': [-1],
        f'{SAVE}.filename_tmpl': ['run/{}.pth', '{:06d}.pth'],
        'activation_checkpointing': ['image_encoder', ['image_encoder', 'text_encoder']],
        'sync_bn': [None, 'torch'],
        'train_cfg.val_begin': [0, 36, 37],  # the last turns validation off
        f'{LOADER}.num_workers': [0, 64],
    },
    'detector': {
        'model.test_cfg.max_per_img': [-1, 1],
        'model.test_cfg.nms': [{'type': 'soft_nms', 'iou_threshold': 0.5}],
        'model.test_cfg.score_thr': [0, 0.0],
        f'{WRAPPER}.constructor': ['DefaultOptimWrapperConstructor'],
        'val_evaluator.per_class': [True],
    },
    'recognizer': {'model.cls_head.dropout_ratio': [0, 1], f'{STEPS}.1.num_clips': [2]},
    'METER': {f'{ADAM}.fused': [None, False], 'model.fusion.num_layers': [np.int32(2)]},
}
#: Keys that a reader misspells.
KEYS = {
    'UniCL': {
        f'{WRAPPER}.paramwise_cfg.lr_mlt': {'image_encoder': 0.1},
        f'{WRAPPER}.paramwise_cfg.ortogonal': ['image_encoder'],
        f'{LOADER}.sampler.shufle': True,
        'default_hooks.logger.ignore_lst': True,
        'log_processor.windowsize': 10,
        'randomness.determinstic': True,
    },
    'detector': {'model.bbox_head.num_clases': 10, 'model.neck.num_out': 2, 'val_evaluator.per_clas': True},
    'recognizer': {'model.cls_head.dropout_ration': 0.5},
    'METER': {f'{ADAM}.weight_dcay': 0.1, 'model.text_encoder.tower.vocab': 4096, 'model.heads.vqa.answrs': ['a']},
}


@functools.cache
def _config(family: str) -> Config:
    cfg = load_config(ROOT / 'configs' / FILES[family])
    check_whole_config(cfg)
    return cfg


def _checked(family: str, key: str, value: Any) -> Callable[[Path], str]:
    def run(folder: Path) -> str:
        cfg = copy.deepcopy(_config(family))
        node: Any = cfg._cfg_dict
        *parents, last = (int(part) if part.isdigit() else part for part in key.split('.'))
        for part in parents:
            if isinstance(node, dict) and node.get(part) is None:
                node[part] = ConfigDict()
            node = node[part]
        node[last] = value
        check_whole_config(cfg)
        return 'accepted'

    return run


def _words(family: str, key: str, value: Any) -> str:
    shown = 'a lambda' if value is LAMBDA else repr(value)
    return f'{family}, {key}: {shown[:60]}'


def cases() -> list[BadInput]:
    """All rows."""
    # the forks inherit the imports of a check
    for family in FILES:
        _config(family)
    rows = [
        BadInput(f'{family}, {key}: {what}', _checked(family, key, value), says=key)
        for family, keys in EVERYWHERE.items()
        for key in keys
        for what, value in NO_SETTING.items()
    ]
    bad = ((family, key, value) for family, keys in VALUES.items() for key, values in keys.items() for value in values)
    rows += [BadInput(_words(*one), _checked(*one), says=one[1].rpartition('.')[2]) for one in bad]
    right = ((family, key, value) for family, keys in RIGHT.items() for key, values in keys.items() for value in values)
    rows += [BadInput(_words(*one), _checked(*one), gives='accepted') for one in right]
    slips = ((family, key, value) for family, keys in KEYS.items() for key, value in keys.items())
    rows += [BadInput(f'{one[0]}: {one[1]}', _checked(*one), says=one[1].rpartition('.')[2]) for one in slips]
    return rows
