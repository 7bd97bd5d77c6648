import inspect
from pathlib import Path

import mmdet
import mmpretrain
import pytest
from mmengine.config import Config
from toy_project import toy_config

from florence_mm.config.check import check_config
from florence_mm.config.merge import check_options
from florence_mm.config.signatures import accepted_arguments
from florence_mm.errors import UsageError


def problems(cfg):
    try:
        check_config(cfg)
    except UsageError as error:
        return str(error).split('\n')
    return []


def toy(**options):
    cfg = Config(toy_config('x'))
    cfg.merge_from_dict(options)
    return cfg


def test_a_good_config_has_no_problems():
    assert problems(toy()) == []


@pytest.mark.parametrize(
    'options, sentence',
    [
        ({'model.widht': 3}, "model.widht: ToyModel has no argument 'widht'; did you mean 'width'?"),
        (
            {'val_evaluator.type': 'VOCMetric'},
            "val_evaluator.type: 'VOCMetric' is not registered in metrics; did you mean 'mmdet.VOCMetric'?",
        ),
        ({'model.type': 'ToyModle'}, "model.type: 'ToyModle' is not registered in models; did you mean 'ToyModel'?"),
        (
            {'optim_wrapper.optimizer.weight_decy': 1},
            "optim_wrapper.optimizer.weight_decy: AdamW has no argument 'weight_decy'; did you mean 'weight_decay'?",
        ),
        (
            {'optim_wrapper.clip_grads': {}},
            "optim_wrapper.clip_grads: OptimWrapper has no argument 'clip_grads'; did you mean 'clip_grad'?",
        ),
        (
            {'train_dataloader.batchsize': 3},
            "train_dataloader.batchsize: train_dataloader has no argument 'batchsize'; did you mean 'batch_size'?",
        ),
        (
            {'train_dataloader.sampler.shufle': True},
            "train_dataloader.sampler.shufle: DefaultSampler has no argument 'shufle'; did you mean 'shuffle'?",
        ),
        (
            {'train_cfg.max_iter': 3},
            "train_cfg.max_iter: IterBasedTrainLoop has no argument 'max_iter'; did you mean 'max_iters'?",
        ),
        # followed through three classes' **kwargs to ParamScheduler
        (
            {'param_scheduler.0.begn': 3},
            "param_scheduler.0.begn: CosineAnnealingLR has no argument 'begn'; did you mean 'begin'?",
        ),
        (
            {'default_hooks.logger.intervall': 3},
            "default_hooks.logger.intervall: LoggerHook has no argument 'intervall'; did you mean 'interval'?",
        ),
        (
            {'custom_hooks.1.type': 'TraceHok'},
            "custom_hooks.1.type: 'TraceHok' is not registered in hooks; did you mean 'TraceHook'?",
        ),
        (
            {'val_evaluator.type': 'mmdet.CocoMetrc'},
            "val_evaluator.type: 'mmdet.CocoMetrc' is not registered in metrics; did you mean 'mmdet.CocoMetric'?",
        ),
        (
            {'val_evaluator.type': '.Nothing'},
            "val_evaluator.type: '.Nothing' is not registered in metrics; check the name, or add its module to "
            'custom_imports',
        ),
        ({'randomness.sed': 3}, "randomness.sed: randomness has no argument 'sed'; did you mean 'seed'?"),
        ({'optim_wraper': {}}, "optim_wraper: the runner reads no such key; did you mean 'optim_wrapper'?"),
        (
            {'model.init_cfg': {'type': 'Normal', 'layer': 'Linear', 'sdt': 0.1}},
            "model.init_cfg.sdt: NormalInit has no argument 'sdt'; did you mean 'std'?",
        ),
    ],
)
def test_what_is_wrong_and_what_was_meant(options, sentence):
    assert problems(toy(**options)) == [sentence]


def test_every_problem_is_listed():
    assert len(problems(toy(**{'model.widht': 3, 'train_cfg.max_iter': 3, 'val_cfg.fp61': True}))) == 3


def test_variables_of_the_config_are_left_alone():
    assert problems(toy(dataset_type='ToyData', test_pipeline=[], conv_cfg=None, max_iters=3, img_norm_cfg={})) == []


@pytest.mark.parametrize(
    'options, sentence',
    [
        ({'modle.width': 3}, "--cfg-options modle.width: the config has no key 'modle'; did you mean 'model'?"),
        ({'new_variable': 3}, "--cfg-options new_variable: the config has no key 'new_variable'"),
        # below a dict without a type nothing is known but its other keys
        (
            {'optim_wrapper.clip_grad.max_nrom': 3},
            "optim_wrapper.clip_grad has no key 'max_nrom'; did you mean 'max_norm'?",
        ),
        ({'param_scheduler.1.begin': 3}, "'1' is no index of a list of 1"),
    ],
)
def test_options_that_would_create_a_key(options, sentence):
    with pytest.raises(UsageError) as error:
        check_options(toy(), options)
    assert sentence in str(error.value)


def test_options_that_are_fine():
    check_options(
        toy(),
        {'model.width': 3, 'load_from': 'x', 'param_scheduler.0.begin': 1, 'optim_wrapper.clip_grad.norm_type': 1},
    )


class Base:
    def __init__(self, a, *, b=1, **kwargs):
        self.c = kwargs.pop('c', None)
        self.d = kwargs['d'] if 'e' in kwargs else None


class Forwards(Base):
    def __init__(self, f, **kwargs):
        super().__init__(f, **kwargs)


class Keeps(Base):
    def __init__(self, f, **kwargs):
        self.arguments = kwargs


class Inherits(Forwards):
    pass


class Skips(Forwards):
    def __init__(self, g, **kwargs):
        super(Forwards, self).__init__(g, **kwargs)


def test_accepted_arguments():
    base = {'a', 'b', 'c', 'd', 'e'}
    assert accepted_arguments(Base) == base
    assert accepted_arguments(Forwards) == accepted_arguments(Inherits) == base | {'f'}
    # nothing can be said of arguments that are kept, of a class left out, and of built-in code
    assert accepted_arguments(Keeps) is accepted_arguments(Skips) is accepted_arguments(dict) is None

    def function(x, *rest, y=1):
        return x

    assert accepted_arguments(function) == {'x', 'y'}
    from torch import nn

    assert accepted_arguments(nn.LayerNorm) == set(inspect.signature(nn.LayerNorm).parameters)


#: Configs of models that cannot be imported on this stack: multimodal ones beside transformers 5, and DRN.
ABSENT = ('blip', 'flamingo', 'llava', 'minigpt4', 'ofa', 'otter', 'ram', 'chinese_clip', 'clip', 'localization/drn')


def shipped(package):
    root = Path(package.__file__).parent / '.mim/configs'
    files = sorted(path for path in root.rglob('*.py') if '_base_' not in path.parts)
    return root, [path for path in files if not path.relative_to(root).as_posix().startswith(ABSENT)]


def all_problems(root, files):
    """Problems of configs that are whole: those that train, or at least test."""
    found = {}
    for path in files:
        try:
            cfg = Config.fromfile(str(path))
        # a few shipped files do not load: their base is not shipped, or has changed
        except (FileNotFoundError, RuntimeError, KeyError):
            continue
        if 'train_dataloader' in cfg or 'test_dataloader' in cfg:
            lines = problems(cfg)
            if lines:
                found[path.relative_to(root).as_posix()] = [line.split(':')[0] for line in lines]
    return found


def test_configs_of_other_packages_raise_no_false_alarm():
    for package in (mmdet, mmpretrain):
        root, files = shipped(package)
        chosen = files[::100]
        real = REAL.get(package.__name__, {})
        names = {path.relative_to(root).as_posix() for path in chosen}
        assert all_problems(root, chosen) == {name: real[name] for name in names & set(real)}


#: Real faults of shipped configs: each of these does not build with the package that ships it.
REAL = {
    'mmdet': {
        'bytetrack/bytetrack_yolox_x_8xb4-amp-80e_crowdhuman-mot20train_test-mot20test.py': ['test_evaluator.type'],
        'cascade_rpn/cascade-rpn_r50-caffe_fpn_1x_coco.py': [
            'model.rpn_head.stages.0.sampling',
            'model.rpn_head.stages.1.sampling',
        ],
        'v3det/fcos_swinb_fpn_8x4_sample1e-3_mstrain_v3det_2x.py': ['model.neck.force_grad_on_level'],
    },
    'mmpretrain': {
        f'resnest/resnest{n}_in1k.py': ['val_cfg', 'test_cfg']
        for n in ('101_32xb64', '200_64xb32', '269_64xb32', '50_32xb64')
    },
    'mmaction': {
        # a comma makes its loader a tuple
        'skeleton/posec3d/slowonly_r50_8xb16-u48-240e_gym-limb.py': ['train_dataloader'],
        'recognition/omnisource/slowonly_r50_8xb16-8x8x1-256e_imagenet-kinetics400-rgb.py': [
            'train_cfg.other_loaders.0.dataset.type',
            *[f'train_cfg.other_loaders.0.dataset.pipeline.{i}.type' for i in (1, 2, 3)],
        ],
        'recognition/tsm/tsm_imagenet-pretrained-r50_8xb16-1x1x16-50e_kinetics400-rgb.py': [
            'val_dataloader.dataset.pipeline.2.io_backend'
        ],
        'recognition/tsm/tsm_imagenet-pretrained-r50_8xb16-1x1x16-50e_sthv2-rgb.py': [
            'test_dataloader.pipeline',
            'test_dataloader.test_mode',
        ],
        'recognition_audio/audioonly/audioonly_r50_8xb160-64x1x1-100e_kinetics400-audio-feature.py': [
            f'{split}_dataloader.dataset.suffix' for split in ('train', 'val', 'test')
        ],
    },
}


@pytest.mark.slow
@pytest.mark.parametrize('name, step', [('mmdet', 4), ('mmpretrain', 3), ('mmaction', 1)])
def test_many_configs_of_other_packages(name, step):
    package = pytest.importorskip(name)
    root, files = shipped(package)
    chosen = files[1::step] if step > 1 else files
    real = REAL.get(name, {})
    names = {path.relative_to(root).as_posix() for path in chosen}
    assert all_problems(root, chosen) == {name: real[name] for name in names & set(real)}
