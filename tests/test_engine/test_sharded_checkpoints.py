"""Sharded checkpoints are read by any number of processes, and are whole or not there."""

import json
import shutil

import pytest
import safetensors
import torch
from forks import as_ranks
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from safetensors.torch import load_file, save_file
from toy_project import toy_config

from florence_mm.engine.checkpointing import find_latest
from florence_mm.engine.sharded_checkpoints import restore_aside
from florence_mm.errors import UsageError
from florence_mm.models.checkpoints.conversion import convert_file
from florence_mm.models.checkpoints.parts import index_of
from florence_mm.models.checkpoints.reading import read_checkpoint, read_file
from florence_mm.utils.digests import blake2b_of
from florence_mm.utils.files import require_checkpoint

FOLDERS = {'parallelize': {'sharded_checkpoints': True}}
SHARD = {'parallelize': {'blocks': ['Sequential'], 'shard': True, 'sharded_checkpoints': True}}


def options(world, keep=-1, **changes):
    """A toy run of 6 iterations whose batch of 12 is split over so many processes."""
    toy = toy_config('x')
    toy['train_dataloader']['batch_size'] = 12 // world
    hook = {'type': 'CheckpointHook', 'interval': 2, 'by_epoch': False, 'max_keep_ckpts': keep}
    return {
        # 7 rows, which neither 2 nor 3 processes divide
        'model': {'type': 'ToyModel', 'width': 7, 'drop_rate': 0.0},
        'custom_hooks': [],
        'train_cfg': {'type': 'IterBasedTrainLoop', 'max_iters': 6, 'val_interval': 6},
        'train_dataloader': toy['train_dataloader'],
        'default_hooks': {'checkpoint': hook},
        **({'launcher': 'pytorch', **SHARD} if world > 1 else FOLDERS),
        **changes,
    }


def assert_equal_runs(expected, folder):
    state = read_file(folder)['state_dict']
    assert state.keys() == expected['state_dict'].keys()
    for key, value in expected['state_dict'].items():
        torch.testing.assert_close(state[key], value, rtol=1e-6, atol=1e-6)


def test_any_number_of_processes_goes_on(train, tmp_path):
    def resume(folder):
        return {'resume': True, 'load_from': str(tmp_path / folder)}

    train('plain', **options(1, parallelize=None))
    plain = torch.load(tmp_path / 'plain/iter_6.pth', weights_only=True)
    train('one', **options(1))
    zero = {'optimizer': {'type': 'ZeroRedundancyOptimizer', 'optimizer_type': 'AdamW', 'lr': 0.01}}
    zero = {'parallelize': FOLDERS['parallelize'], 'optim_wrapper': {**zero, 'clip_grad': {'max_norm': 1.0}}}

    def two():
        train('two', **options(2))
        train('two_from_one', **options(2, **resume('one/iter_4')))
        train('two_from_plain', **options(2, **resume('plain/iter_4.pth')))
        train('zero', **options(2, **zero))
        train('zero_from_two', **options(2, **zero, **resume('two/iter_4')))

    as_ranks(two, 2)
    as_ranks(lambda: train('three_from_two', **options(3, **resume('two/iter_4'))), 3)
    train('one_from_two', **options(1, **resume('two/iter_4')))
    train('one_from_zero', **options(1, **resume('zero/iter_4')))
    runs = ['one', 'two', 'two_from_one', 'two_from_plain', 'zero', 'zero_from_two', 'three_from_two', 'one_from_two']
    for name in (*runs, 'one_from_zero'):
        assert_equal_runs(plain, tmp_path / name / 'iter_6')
        assert (tmp_path / name / 'last_checkpoint').read_text() == str(tmp_path / name / 'iter_6')
        state = read_file(tmp_path / name / 'iter_6/state.pth')
        assert state['param_schedulers'] == plain['param_schedulers']
        assert state['meta']['iter'] == 6
        assert [*state['optimizer']['param_groups'][0]['params']] == [0, 1, 2, 3, 4]
    # three processes wrote it, each its rows of weights and of moments
    files = json.loads((tmp_path / 'three_from_two/iter_6/checkpoint.json').read_text())
    assert files['processes'] == 3
    assert sum(name.endswith('.safetensors') for name in files['files']) == 6
    convert_file(tmp_path / 'three_from_two/iter_6', tmp_path / 'one.safetensors', to='florence_mm')
    assert_equal_runs(plain, tmp_path / 'one.safetensors')


@pytest.mark.parametrize('kind', ['NAdam', 'ASGD'])
def test_counts_of_an_optimizer_are_no_moments(train, tmp_path, kind):
    """They are one number for a parameter of any size, and are not split with those of a single number."""
    wrapper = {'optim_wrapper': {'optimizer': {'type': kind, 'lr': 0.01}}}
    train('one', **options(1, **wrapper))
    from_one = {'resume': True, 'load_from': str(tmp_path / 'one/iter_4')}
    as_ranks(lambda: train('two', **options(2, **wrapper, **from_one)), 2)
    assert_equal_runs(read_file(tmp_path / 'one/iter_6'), tmp_path / 'two/iter_6')


def test_a_new_run_starts_from_one(train, tmp_path):
    train('run', **options(1))
    weights = read_file(tmp_path / 'run/iter_6')['state_dict']
    still = {'optimizer': {'type': 'SGD', 'lr': 0.0}}
    init = {'type': 'florence_mm.Pretrained', 'checkpoint': str(tmp_path / 'run/iter_6')}
    model = {**options(1)['model'], 'init_cfg': init}

    def two():
        train('loaded', **options(2, load_from=str(tmp_path / 'run/iter_6'), optim_wrapper=still))
        train('initialised', **options(2, model=model, optim_wrapper=still))

    as_ranks(two, 2)
    for name in ('loaded', 'initialised'):
        state = read_file(tmp_path / name / 'iter_2')['state_dict']
        assert all(torch.equal(state[key], value) for key, value in weights.items())


def test_a_killed_run_leaves_whole_ones(train, in_child, tmp_path):
    train('all', **options(1))
    for at, before in ((4, 'iter_2'), (6, 'iter_4')):
        work = tmp_path / f'killed_{at}'
        kill = {'custom_hooks': [{'type': 'KillHook', 'in_save': at}]}
        assert in_child(lambda work=work, kill=kill: train(work.name, **options(1, keep=1, **kill))) == -9
        assert find_latest(work) == str(work / before)
        assert [path.name for path in work.glob('.iter_*.tmp')]
        train(work.name, **options(1, keep=1, resume=True))
        assert_equal_runs(read_file(tmp_path / 'all/iter_6'), work / 'iter_6')
        # earlier ones are deleted, and what was not finished
        assert [path.name for path in sorted(work.glob('*iter_*')) if path.is_dir()] == ['iter_6']
        assert not list(work.glob('.*.tmp'))


def test_one_that_is_being_replaced_is_found(train, tmp_path):
    train('run', **options(1))
    run = tmp_path / 'run'
    # killed between the two renames
    (run / 'iter_6').rename(run / '.iter_6.aside')
    assert find_latest(run) == str(run / '.iter_6.aside')
    restore_aside(run)
    assert find_latest(run) == str(run / 'iter_6')
    shutil.copytree(run / 'iter_4', run / '.iter_6.aside')
    restore_aside(run)
    assert not (run / '.iter_6.aside').exists()
    assert read_file(run / 'iter_6')['meta']['iter'] == 6


def test_damage_is_one_sentence(train, tmp_path):
    train('run', **options(1))
    good = tmp_path / 'run/iter_6'
    weights, moments = sorted(path.name for path in good.glob('*.safetensors'))

    def damaged(name, change):
        bad = tmp_path / f'bad_{change}_{name}'
        shutil.copytree(good, bad)
        file = bad / name
        content = file.read_bytes()
        if change == 'gone':
            file.unlink()
        elif change == 'cut':
            file.write_bytes(content[:-1])
        elif change == 'flipped':
            file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        elif change == 'added':
            shutil.copy(file, bad / 'shard-00009-model-00001-of-00002.safetensors')
        return bad

    for name, change, sentence in [
        (weights, 'gone', f'lacks {weights}, one of the 3 files of the checkpoint'),
        (moments, 'cut', f'{moments} is damaged: it has .* bytes instead of'),
        (weights, 'flipped', f'{weights} is damaged: it has not the digest in checkpoint.json'),
        ('state.pth', 'flipped', 'state.pth is damaged'),
        (weights, 'added', 'has shard-00009-.*, which is not in the list'),
        ('checkpoint.json', 'cut', 'checkpoint.json lists no files of a sharded checkpoint'),
    ]:
        bad = damaged(name, change)
        with pytest.raises(UsageError, match=f'{sentence}.*; take an earlier checkpoint'):
            train('resumed', **options(1, resume=True, load_from=str(bad)))
        with pytest.raises(ValueError, match=sentence):
            read_checkpoint(bad)
    with pytest.raises(UsageError, match='is a folder without checkpoint.json, and no whole checkpoint'):
        require_checkpoint(str(damaged('checkpoint.json', 'gone')))
    with pytest.raises(UsageError, match='is of another model'):
        other = {'model': {'type': 'ToyModel', 'width': 8}}
        train('other', **options(1, resume=True, load_from=str(good), **other))


def list_anew(folder):
    """Write the list of files again, as they are now: what then differs is no damage of a file."""
    files = [file for file in folder.iterdir() if file.name != 'checkpoint.json']
    entries = {file.name: (file.stat().st_size, blake2b_of(file)) for file in files}
    (folder / 'checkpoint.json').write_text(index_of(entries, 2))


def rewrite(file, tensors=None, places=None):
    """Change tensors and places of a file, given functions of both."""
    with safetensors.safe_open(file, 'pt') as opened:
        header = opened.metadata()
    content, found = load_file(file), json.loads(header['DCP_SHARDING_INFO'])
    content, found = (tensors or dict)(content), (places or dict)(found)
    save_file(content, file, {**header, 'DCP_SHARDING_INFO': json.dumps(found)})


def test_files_that_are_not_of_one_checkpoint_are_one_sentence(train, tmp_path):
    train('one', **options(1))
    train('wide', **options(1, model={'type': 'ToyModel', 'width': 8, 'drop_rate': 0.0}))
    as_ranks(lambda: train('two', **options(2)), 2)
    as_ranks(lambda: train('three', **options(3)), 3)
    one, wide, two, three = (tmp_path / name / 'iter_4' for name in ('one', 'wide', 'two', 'three'))
    weights, moments = (f'shard-00001-model-0000{number}-of-00002.safetensors' for number in (1, 2))

    def take(source, pattern):
        return lambda bad: [shutil.copy(file, bad) for file in source.glob(pattern)]

    def lose(pattern):
        return lambda bad: [file.unlink() for file in list(bad.glob(pattern))]

    def foreign(key):
        def change(bad):
            rewrite(
                bad / moments,
                lambda tensors: {**tensors, key: torch.ones(2)},
                lambda places: {**places, key: {'saved_offsets': [0]}},
            )

        return change

    def placed(offsets):
        return lambda bad: rewrite(bad / weights, places=lambda known: dict.fromkeys(known, offsets))

    no_file = 'is no file of a sharded checkpoint, whose header has the place of each tensor'
    cases = [
        # rows that nothing has, that two files have, and that are left in memory as it is if nobody looks
        (two, lose('shard-00001-*'), 'begins with row 4 .* does not go on from the 0 rows before it'),
        (two, take(three, 'shard-00003-*'), r'shard-00003-.* begins with row 6 and has the shape \(1,\) .* the 7 rows'),
        (two, take(three, 'shard-00001-*'), 'and does not go on from the 3 rows before it'),
        (two, lose('shard-00002-*'), r'is of another model: 2 weights differ, the first is fc\.0'),
        (one, take(wide, weights), r'is of another model: 3 weights differ, the first is fc\.'),
        (one, take(wide, moments), 'exp_avg of parameter 1 of the optimizer has 32 numbers, and the parameter 28'),
        (one, foreign('optimizer.99.exp_avg'), 'has optimizer.99.exp_avg, which is no weight and of no optimizer'),
        (one, foreign('something'), 'has something, which is no weight and of no optimizer state'),
        (one, lambda bad: (bad / weights).write_bytes(b'x' * 99), f'{weights} {no_file}'),
        (one, lambda bad: save_file(load_file(bad / weights), bad / weights), f"{no_file} .KeyError: 'DCP_SH"),
        (one, placed({}), f"{no_file} .KeyError: 'saved_offsets'"),
        (one, placed({'saved_offsets': [0, 0, 0]}), f'{no_file} .TypeError: .* is placed at'),
        (one, placed({'saved_offsets': [-1, -1]}), f'{no_file} .TypeError: .* is placed at'),
        (one, lambda bad: torch.save({'meta': {}}, bad / 'state.pth'), 'state.pth has no state_dict'),
        (one, lambda bad: torch.save([1], bad / 'state.pth'), 'state.pth holds a list, not a checkpoint'),
    ]
    for number, (good, change, sentence) in enumerate(cases):
        bad = tmp_path / f'bad_{number}'
        shutil.copytree(good, bad)
        change(bad)
        list_anew(bad)
        with pytest.raises(UsageError, match=sentence) as caught:
            train('resumed', **options(1, resume=True, load_from=str(bad)))
        assert '\n' not in str(caught.value)
        if no_file in sentence or 'does not go on' in sentence:
            with pytest.raises(ValueError, match=sentence):
                read_checkpoint(bad)


def test_what_needs_one_file_is_refused(train):
    with pytest.raises(UsageError, match='parallelize.sharded_checkpoints cannot be used with EMAHook'):
        train(**options(1, custom_hooks=[{'type': 'EMAHook'}]))
    published = options(1)['default_hooks']
    published['checkpoint']['published_keys'] = ['state_dict']
    with pytest.raises(UsageError, match='published_keys is for checkpoints of one file'):
        train(**options(1, default_hooks=published))


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TwoOptimizers:
    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        self.rate = optim_wrapper_cfg['optimizer']['lr']

    def __call__(self, model):
        layers = [
            [value for key, value in model.named_parameters() if ('fc' in key) is there] for there in (True, False)
        ]
        layers, others = (OptimWrapper(torch.optim.SGD(group, self.rate)) for group in layers)
        return OptimWrapperDict(layers=layers, others=others)


def test_optimizers_that_cannot_be_split_are_refused(train):
    wrapper = {'constructor': 'TwoOptimizers', 'optimizer': {'type': 'SGD', 'lr': 0.01}}
    with pytest.raises(UsageError, match='sharded_checkpoints is for one optimizer, and .* has 2, layers, others'):
        train(**options(1, optim_wrapper=wrapper, param_scheduler=None))
    zero = {'optimizer': {'type': 'ZeroRedundancyOptimizer', 'optimizer_type': 'AdamW', 'lr': 0.01}}

    def two():
        with pytest.raises(UsageError, match='parallelize.shard is for one optimizer, and optim_wrapper has 2'):
            train('several', **options(2, optim_wrapper=wrapper, param_scheduler=None))
        with pytest.raises(UsageError, match='cannot share out split weights; take AdamW itself as optim_wrapper.opt'):
            train('zero', **options(2, optim_wrapper=zero))

    as_ranks(two, 2)
