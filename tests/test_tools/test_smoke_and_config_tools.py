"""``--smoke`` on configs of three packages, and the tools that look at a config."""

import json
import tempfile
from pathlib import Path

import mmpretrain
import pytest
from mmengine.config import Config
from toy_project import toy_config

from florence_mm.config.pick import find_step
from florence_mm.errors import UsageError
from florence_mm.smoke.run import run_smoke, smoke_config

REPOSITORY = Path(__file__).parents[2]
SHIPPED = Path(mmpretrain.__file__).parent / '.mim/configs'
DIGITS = next((REPOSITORY / 'configs/unicl').glob('*micro*e_digits.py'))


def test_smoke_command(tool, tmp_path, monkeypatch):
    """Two steps of a config that asks for 100,000; what they wrote is gone afterwards."""
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    config = toy_config(tmp_path / 'w', smoke={'model': {'width': 2}}, log_level='INFO', experiment_name='smoke')
    config['train_cfg']['max_iters'] = 100_000
    status, out, err = tool('train.py', config, '--smoke')
    assert status == 0, err
    assert 'smoke: passed 2 steps (loss ' in out + err
    # the set-up is not on the console, nor are warnings about what nobody asked for
    assert len(out.splitlines()) < 20 and 'Config:' not in out and 'WARNING' not in out
    assert not (tmp_path / 'w').exists() and not list(tmp_path.glob('florence_smoke_*'))


def test_smoke_of_the_digits(tmp_path):
    cfg = Config.fromfile(str(DIGITS))
    cfg.experiment_name = 'smoke_digits'
    metrics = run_smoke(cfg, tmp_path)
    assert 0 <= metrics['zero_shot/top1'] <= 1
    # nothing of the config's own data is read, and its pipelines stay
    small = smoke_config(cfg, tmp_path)
    assert small.train_dataloader.dataset.ann_file == str(tmp_path / 'train/manifest.jsonl')
    assert small.train_dataloader.dataset.pipeline == cfg.train_dataloader.dataset.pipeline
    assert cfg.train_dataloader.dataset.ann_file == 'data/digits/train.jsonl'


def test_smoke_of_an_mmpretrain_classifier(tmp_path):
    cfg = Config.fromfile(str(SHIPPED / 'resnet/resnet18_8xb16_cifar10.py'))
    cfg.experiment_name = 'smoke_cifar'
    metrics = run_smoke(cfg, tmp_path)
    assert metrics['accuracy/top1'] in (0, 25, 50, 75, 100)


def test_smoke_of_a_schedule_that_takes_its_end_from_the_loop(tmp_path):
    """mmpretrain's Swin config: a warm-up of 20 epochs, then a cosine without an end."""
    path = tmp_path / 'mine.py'
    path.write_text(
        "_base_ = 'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py'\n"
        "model = dict(backbone=dict(_delete_=True, type='florence_mm.CoSwin', arch='micro', out_indices=(2,)),\n"
        '             head=dict(in_channels=128))\n'
    )
    cfg = Config.fromfile(str(path))
    cfg.experiment_name = 'smoke_swin'
    assert 'accuracy/top5' in run_smoke(cfg, tmp_path)
    (log,) = tmp_path.glob('work_dir/*/*.log')
    assert all(words in log.read_text() for words in ('System environment:', 'Config:', 'Hooks will be executed'))


def test_smoke_of_an_mmaction_recognizer(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        "_base_ = 'mmaction::recognition/tsn/tsn_imagenet-pretrained-r50_8xb32-1x1x3-100e_kinetics400-rgb.py'\n"
        "model = dict(backbone=dict(_delete_=True, type='florence_mm.CoSwin', arch='micro', out_indices=(2,)),\n"
        '             cls_head=dict(in_channels=128))\n'
    )
    cfg = Config.fromfile(str(path))
    cfg.experiment_name = 'smoke_tsn'
    assert run_smoke(cfg, tmp_path)['acc/top1'] in (0, 0.25, 0.5, 0.75, 1)
    assert (tmp_path / 'train/videos.txt').read_text() == '0.mp4 0\n1.mp4 1\n2.mp4 0\n3.mp4 1\n'
    small = smoke_config(cfg, tmp_path)
    assert small.train_dataloader.dataset.pipeline == cfg.train_dataloader.dataset.pipeline


def test_ends_of_schedules(tmp_path):
    def ends(schedulers, **loop):
        cfg = Config(toy_config('x', param_scheduler=schedulers, train_cfg=loop))
        return smoke_config(cfg, tmp_path).param_scheduler

    warmup, cosine = {'type': 'LinearLR', 'end': 20}, {'type': 'CosineAnnealingLR', 'begin': 20}
    by_iter = {**cosine, 'by_epoch': False}
    both = ends([warmup, cosine], by_epoch=True, max_epochs=300)
    assert [one['end'] for one in both] == [20, 300]
    assert ends(by_iter, type='IterBasedTrainLoop', max_iters=1000)['end'] == 1000
    # an epoch's iterations are not known before the data are read
    assert ends(by_iter, by_epoch=True, max_epochs=3)['end'] == 22
    # several optimizers
    assert ends({'a': [cosine], 'b': warmup}, by_epoch=True, max_epochs=300) == {
        'a': [{**cosine, 'end': 300}],
        'b': warmup,
    }


def test_what_smoke_changes(tmp_path):
    cfg = Config(toy_config('x', load_from='somewhere.pth', resume=True))
    cfg.merge_from_dict(
        {
            'model.init_cfg': {'type': 'Pretrained', 'checkpoint': 'https://example.org/x.pth'},
            'model.backbone': {'pretrained': 'torchvision://resnet18', 'init_cfg': {'type': 'Normal', 'std': 1}},
            'optim_wrapper.type': 'AmpOptimWrapper',
            'optim_wrapper.loss_scale': 'dynamic',
            'smoke': {'model': {'width': 3}},
        }
    )
    find_step(cfg.custom_hooks, 'EMAHook').begin_iter = 500
    small = smoke_config(cfg, tmp_path)
    assert (small.load_from, small.resume, small.work_dir) == (None, False, str(tmp_path / 'work_dir'))
    assert small.model == {
        'type': 'ToyModel',
        'width': 3,
        'init_cfg': None,
        'backbone': {'pretrained': None, 'init_cfg': {'type': 'Normal', 'std': 1}},
    }
    assert small.optim_wrapper.type == 'mmengine.OptimWrapper' and 'loss_scale' not in small.optim_wrapper
    assert find_step(small.custom_hooks, 'EMAHook').begin_iter == 0
    assert (small.train_dataloader.batch_size, small.train_dataloader.num_workers) == (2, 0)


@pytest.mark.parametrize(
    ('wrapper', 'left'),
    [
        ({'type': 'AmpOptimWrapper', 'dtype': 'bfloat16'}, {'type': 'AmpOptimWrapper', 'dtype': 'bfloat16'}),
        ({'type': 'FlorenceAmpOptimWrapper'}, {'type': 'FlorenceAmpOptimWrapper'}),
        ({'type': 'FlorenceAmpOptimWrapper', 'dtype': 'float16'}, {'type': 'mmengine.OptimWrapper'}),
        ({'type': 'mmengine.AmpOptimWrapper', 'loss_scale': 512.0}, {'type': 'mmengine.OptimWrapper'}),
    ],
)
def test_mixed_precision_that_the_cpu_has_stays(wrapper, left, tmp_path):
    assert smoke_config(Config(toy_config('x', optim_wrapper=wrapper)), tmp_path).optim_wrapper == left


def test_mixtures_and_wrappers(tmp_path):
    folder = {'type': 'florence_mm.ImageFolderText', 'data_root': 'nowhere', 'class_names': 'imagenet1k'}
    manifest = {'type': 'ImageTextManifest', 'ann_file': 'nowhere.csv', 'columns': {'text': 'title'}}
    mixture = {
        'type': 'WeightedMixture',
        'epoch_size': 10**9,
        'datasets': [{'dataset': folder, 'weight': 1}, {'dataset': manifest, 'weight': 1000}],
    }
    cfg = Config(toy_config('x'))
    cfg.train_dataloader.dataset = {'type': 'RepeatDataset', 'times': 3, 'dataset': mixture}
    from florence_mm.registry import DATASETS

    dataset = DATASETS.build(smoke_config(cfg, tmp_path).train_dataloader.dataset.dataset)
    assert dataset.sizes == [4, 4] and dataset.metainfo.get('num_skipped', 0) == 0
    texts = [dataset.get_data_info(i)['text'] for i in range(len(dataset))]
    assert texts[0] == 'tench' and 'a picture of one red square' in texts


@pytest.mark.parametrize(('steps', 'classified'), [([], 4), ([{'type': 'RandomPrompt'}], 2)])
def test_generated_images_all_have_a_class_for_a_classifier(tmp_path, steps, classified):
    """Without a step that makes texts of classes, what a manifest of known classes trains is a classifier."""
    cfg = Config(toy_config('x'))
    cfg.train_dataloader.dataset = {
        'type': 'ImageTextManifest',
        'ann_file': 'nowhere.jsonl',
        'classes': 'digits',
        'pipeline': steps,
    }
    dataset = smoke_config(cfg, tmp_path).train_dataloader.dataset
    rows = [json.loads(line) for line in Path(dataset.ann_file).read_text().splitlines()]
    assert sum('class' in row for row in rows) == classified and len(rows) == 4


def test_a_data_set_without_a_generator(tmp_path):
    cfg = Config(toy_config('x'))
    cfg.train_dataloader.dataset = {'type': 'ToyData', 'ann_file': 'x.txt'}
    with pytest.raises(
        UsageError, match="train_dataloader.dataset: --smoke has no generated data for the type 'ToyData'"
    ):
        smoke_config(cfg, tmp_path)


def test_print_config(tool):
    status, out, _ = tool('misc/print_config.py', DIGITS, '--origin', '--cfg-options', 'optim_wrapper.optimizer.lr=0.5')
    assert status == 0
    lines = {line.split(' = ')[0]: line.split('  # ')[-1] for line in out.split('\n') if ' = ' in line}
    assert lines['optim_wrapper.optimizer.lr'] == 'command line'
    assert lines['model.image_encoder.arch'].endswith(DIGITS.name)
    assert lines['default_scope'].endswith('_base_/default_runtime.py')
    status, _, err = tool('misc/print_config.py', DIGITS, '--check', '--cfg-options', 'model.embed_dim=3')
    assert status == 2
    assert err.strip() == "error: model.embed_dim: UniCL has no argument 'embed_dim'; did you mean 'embed_dims'?"


def test_get_flops(tool):
    status, out, _ = tool('analysis_tools/get_flops.py', DIGITS, '--shape', 32, '--json')
    assert status == 0
    counted = json.loads(out)
    assert counted['macs'].keys() == {'one image', 'one text of full length'}
    assert all(n > 1e5 for n in (counted['parameters'], *counted['macs'].values()))
