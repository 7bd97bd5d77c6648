"""Keys of a config: which registry builds what stands under a key, and what sections without a class contain."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Sampler

#: Registry of the objects under a config key, at any position.
REGISTRY_OF_KEY = {
    'model': 'MODELS',
    'tta_model': 'MODELS',
    'data_preprocessor': 'MODELS',
    'dataset': 'DATASETS',
    'datasets': 'DATASETS',
    'support': 'DATASETS',
    'pipeline': 'TRANSFORMS',
    'transforms': 'TRANSFORMS',
    'batch_sampler': 'DATA_SAMPLERS',
    'collate_fn': 'FUNCTIONS',
    'worker_init_fn': 'FUNCTIONS',
    'optim_wrapper': 'OPTIM_WRAPPERS',
    'optimizer': 'OPTIMIZERS',
    'param_scheduler': 'PARAM_SCHEDULERS',
    'val_evaluator': 'METRICS',
    'test_evaluator': 'METRICS',
    'metrics': 'METRICS',
    'default_hooks': 'HOOKS',
    'custom_hooks': 'HOOKS',
    'visualizer': 'VISUALIZERS',
    'vis_backends': 'VISBACKENDS',
    'log_processor': 'LOG_PROCESSORS',
    'init_cfg': 'WEIGHT_INITIALIZERS',
    'model_wrapper_cfg': 'MODEL_WRAPPERS',
}
#: Keys that the builder of a registry removes before it calls the constructor.
BUILDER_KEYS = {
    'HOOKS': {'priority'},
    'PARAM_SCHEDULERS': {'convert_to_iter_based', 'epoch_length'},
    'OPTIM_WRAPPERS': {'optimizer', 'constructor', 'paramwise_cfg'},
    'WEIGHT_INITIALIZERS': {'override', 'name'},
    'MODELS': {'requires_grad', 'postfix'},
}
#: Keys with a list of dicts that all have a type, and with one such dict.
LISTS_OF_TYPES = ('pipeline', 'custom_hooks', 'vis_backends', 'val_evaluator', 'test_evaluator', 'param_scheduler')
#: Values of ``nms.type``, which mmcv would evaluate as Python code.
NMS_TYPES = ('nms', 'soft_nms', 'nms_match', 'nms_quadri', 'nms_rotated')
#: Lists that need an item in classes of ours.
NEVER_EMPTY = ('pipeline', 'out_indices', 'topk', 'datasets')
ONE_OF_TYPE = ('model', 'dataset', 'sampler', 'optimizer')

#: Top-level keys that the runner and the tools read.
RUNNER_KEYS = frozenset(
    [*(set(inspect.signature(Runner).parameters) - {'cfg'}), 'runner_type', 'custom_imports', 'compile', 'smoke']
    + ['activation_checkpointing', 'efficient_conv_bn_eval', 'model_wrapper_cfg', 'sync_bn', 'find_unused_parameters']
    + ['parallelize', 'tta_model']
)


def parameters_of(function: Callable, *without: str) -> dict[str, inspect.Parameter]:
    """The parameters of a function by name, ``*args`` and ``**kwargs`` left out."""
    found = inspect.signature(inspect.unwrap(function)).parameters
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: found[name] for name in found if found[name].kind in kinds and name not in without}


def registry_of(parameter: inspect.Parameter | None) -> str | None:
    """The registry of the parts that an argument of a class of ours takes, from its annotation."""
    if parameter is None:
        return None
    kinds = [kind for kind in (parameter.annotation, *get_args(parameter.annotation)) if inspect.isclass(kind)]
    if any(issubclass(kind, nn.Module) for kind in kinds):
        return 'MODELS'
    return 'DATA_SAMPLERS' if any(issubclass(kind, Sampler) for kind in kinds) else None


def section_of(**annotations: Any) -> dict[str, inspect.Parameter]:
    """The keys of a dict as arguments with these annotations."""
    kind = inspect.Parameter.KEYWORD_ONLY
    return {name: inspect.Parameter(name, kind, annotation=annotations[name]) for name in annotations}


# mmengine's annotations of these are missing or narrower than what it takes
_TOP = section_of(
    model=dict,
    work_dir=str | None,
    train_dataloader=dict | None,
    val_dataloader=dict | None,
    test_dataloader=dict | None,
    train_cfg=dict | None,
    val_cfg=dict | None,
    test_cfg=dict | None,
    optim_wrapper=dict | None,
    param_scheduler=dict | list | None,
    val_evaluator=dict | list | None,
    test_evaluator=dict | list | None,
    default_hooks=dict | None,
    custom_hooks=list | None,
    data_preprocessor=dict | None,
    load_from=str | None,
    resume=bool,
    launcher=Literal['none', 'pytorch', 'slurm', 'mpi'],
    env_cfg=dict,
    log_processor=dict | None,
    log_level=Literal['CRITICAL', 'FATAL', 'ERROR', 'WARNING', 'WARN', 'INFO', 'DEBUG', 'NOTSET'] | int,
    visualizer=dict | None,
    default_scope=str | None,
    randomness=dict,
    experiment_name=str | None,
    auto_scale_lr=dict | None,
    compile=dict | bool | None,
    runner_type=str,
    smoke=dict,
    tta_model=dict,
    parallelize=dict | None,
    find_unused_parameters=bool,
    activation_checkpointing=str | list[str] | None,
    efficient_conv_bn_eval=str | list[str] | None,
    sync_bn=Literal['torch', 'mmcv'] | None,
    model_wrapper_cfg=dict | None,
)
_LOADER = {
    **parameters_of(DataLoader),
    **section_of(
        dataset=dict,
        sampler=Sampler | None,
        batch_sampler=dict | None,
        num_batch_per_epoch=int | None,
        disable_subprocess_warning=bool,
    ),
    **section_of(persistent_workers=bool, pin_memory=bool, drop_last=bool, num_workers=int, batch_size=int | None),
}
#: Backends of torch and its plug-ins.
_BACKENDS = ('nccl', 'gloo', 'mpi', 'ucc', 'xccl', 'hccl', 'cncl', 'mccl', 'smddp', 'cpu:gloo,cuda:nccl')
#: Arguments by the dotted path of a dict that has no type; '' for the config itself.
SECTIONS: Mapping[str, Mapping[str, inspect.Parameter]] = {
    '': _TOP,
    'train_dataloader': _LOADER,
    'val_dataloader': _LOADER,
    'test_dataloader': _LOADER,
    'randomness': section_of(seed=int | None, diff_rank_seed=bool, deterministic=bool),
    'auto_scale_lr': section_of(enable=bool, base_batch_size=int),
    'env_cfg': section_of(cudnn_benchmark=bool, mp_cfg=dict, dist_cfg=dict, resource_limit=int),
    'env_cfg.mp_cfg': section_of(mp_start_method=Literal['fork', 'spawn', 'forkserver'], opencv_num_threads=int),
    'env_cfg.dist_cfg': {
        **parameters_of(torch.distributed.init_process_group),
        **section_of(backend=Literal[_BACKENDS], init_backend=str, timeout=float, port=int),
    },
    'custom_imports': section_of(imports=str | list, allow_failed_imports=bool),
}
