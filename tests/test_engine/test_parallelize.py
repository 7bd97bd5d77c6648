"""Sharded runs equal runs in one process, and either kind resumes from the other's checkpoints."""

from contextlib import nullcontext

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.data import Dataset
from toy_project import ToyModel, toy_config

from florence_mm.engine.meta_init import ShardedInit
from florence_mm.engine.parallelize import check_options, parallelize
from florence_mm.errors import UsageError

PLAIN = {'model': {'type': 'ToyModel', 'drop_rate': 0.0}, 'custom_hooks': []}


def with_batch(size):
    return {**toy_config('x')['train_dataloader'], 'batch_size': size}


def every_checkpoint():
    hooks = toy_config('x')['default_hooks']
    hooks['checkpoint'].pop('max_keep_ckpts')
    return hooks


def assert_close(a, b):
    a, b = (torch.load(path, weights_only=True) for path in (a, b))
    assert a['state_dict'].keys() == b['state_dict'].keys()
    for key, value in a['state_dict'].items():
        torch.testing.assert_close(b['state_dict'][key], value, rtol=1e-6, atol=1e-6)
    assert a['optimizer']['param_groups'][0]['params'] == b['optimizer']['param_groups'][0]['params']
    for index, entry in a['optimizer']['state'].items():
        for key, value in entry.items():
            torch.testing.assert_close(b['optimizer']['state'][index][key], value, rtol=1e-5, atol=1e-6)


def test_sharded_runs_equal_one_process(train, two_processes, tmp_path):
    train('one', **PLAIN, train_dataloader=with_batch(4), default_hooks=every_checkpoint())
    shard = {'parallelize': {'blocks': ['Sequential'], 'shard': True}}
    zero = {'optimizer': {'type': 'ZeroRedundancyOptimizer', 'optimizer_type': 'AdamW', 'lr': 0.01}}
    both = {**PLAIN, 'launcher': 'pytorch', 'train_dataloader': with_batch(2), 'default_hooks': every_checkpoint()}
    from_one = {'resume': True, 'load_from': str(tmp_path / 'one/iter_10.pth')}

    def work():
        train('sharded', **both, **shard)
        train('zero', **both, optim_wrapper={**zero, 'clip_grad': {'max_norm': 1.0}})
        train('resumed_sharded', **both, **shard, **from_one)

    two_processes(work)
    from_sharded = {'resume': True, 'load_from': str(tmp_path / 'sharded/iter_10.pth')}
    train('resumed_one', **PLAIN, train_dataloader=with_batch(4), **from_sharded)
    for name in ('sharded', 'zero', 'resumed_sharded', 'resumed_one'):
        assert_close(tmp_path / 'one/iter_17.pth', tmp_path / name / 'iter_17.pth')


class Scale(nn.Module):
    """The gradient of its sum is its input."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x * self.weight


def test_gradients_are_summed_in_the_given_type(two_processes):
    # beside 1, bfloat16 loses 2 ** -10 and 2 ** -20, float16 the latter alone, float32 neither
    fine = 1 + 2**-10 + 2**-20
    cases = [
        ({'reduce_dtype': 'bfloat16'}, (fine, fine), 1.0),
        ({'reduce_dtype': 'float16'}, (fine, fine), 1 + 2**-10),
        ({'reduce_dtype': 'float32'}, (fine, fine), fine),
        ({'reduce_dtype': None}, (fine, fine), fine),
        ({}, (fine, fine), fine),
        # parameters of bfloat16 have gradients of bfloat16; the sum of two is finer, as long as it has a finer type
        ({'param_dtype': 'bfloat16'}, (1.0, 2**-9), (1 + 2**-9) / 2),
        ({'param_dtype': 'bfloat16', 'reduce_dtype': None}, (1.0, 2**-9), 0.5),
    ]

    def work():
        torch.distributed.init_process_group('gloo')
        for options, gradients, mean in cases:
            model = parallelize(nn.Sequential(Scale()), ['Scale'], shard=True, **options)
            model(torch.full((2,), gradients[torch.distributed.get_rank()])).sum().backward()
            gradient = model[0].weight.grad.full_tensor()
            assert gradient.dtype == torch.float32 and gradient.tolist() == [mean] * 2, (options, gradient)
        torch.distributed.destroy_process_group()

    two_processes(work)


class Kernel(nn.Module):
    """A kernel with its channels last, as ours of Dynamic Head; FSDP2 takes contiguous ones only."""

    def __init__(self):
        super().__init__()
        weight = torch.arange(36.0).reshape(2, 2, 3, 3)
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight)


def test_kernels_with_channels_last_are_split(two_processes):
    x = torch.arange(18.0).reshape(1, 2, 3, 3)
    expected = Kernel()(x)

    def work():
        torch.distributed.init_process_group('gloo')
        for meta_init in (False, True):
            init = ShardedInit() if meta_init else None
            with init or nullcontext():
                model = nn.Sequential(Kernel())
            model = parallelize(model, ['Kernel'], shard=True, init=init)
            assert torch.equal(model(x), expected)
            assert model[0].weight.to_local().shape == (1, 2, 3, 3)
        torch.distributed.destroy_process_group()

    two_processes(work)


def test_mmengines_own_runner_in_two_processes(train, two_processes, tmp_path):
    def loader(batch_size):
        return {**with_batch(batch_size), 'dataset': {'type': 'ToyData', 'size': 24, 'noise': 0.0}}

    both = {**PLAIN, 'runner': Runner, 'train_cfg': {'type': 'IterBasedTrainLoop', 'max_iters': 5, 'val_interval': 5}}
    train('one', **both, train_dataloader=loader(4))
    two_processes(lambda: train('two', **both, launcher='pytorch', train_dataloader=loader(2)))
    assert_close(tmp_path / 'one/iter_5.pth', tmp_path / 'two/iter_5.pth')


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        return x + torch.tanh(self.fc(x))


def test_blocks_are_compiled():
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    model = nn.Sequential(Block(), Block(), nn.Linear(8, 1))
    # with a gradient, as what the second block gets has one
    x = torch.randn(3, 8, requires_grad=True)
    expected, keys = model(x), list(model.state_dict())
    assert parallelize(model, ['Block'], compile={'backend': backend}) is model
    torch.testing.assert_close(model(x), expected)
    # the code of one block serves both, and keys are those of the model that is not compiled
    assert len(graphs) == 1
    assert list(model.state_dict()) == keys


@DATASETS.register_module()
class ToyPairs(Dataset):
    """Images with texts and labels."""

    metainfo = {}

    def __len__(self):
        return 8

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(256, (3, 32, 40), generator=generator, dtype=torch.uint8)
        return {'inputs': image, 'data_samples': DataSample(text=f'text {index % 3}', label_key=index % 3)}


def test_unicl_trains_compiled_by_part_and_by_block_as_it_does_plain(train, tmp_path):
    image = {'embed_dims': 8, 'depths': [4], 'num_heads': [1], 'patch_size': 2, 'window_size': 5}
    text = {'embed_dims': 8, 'num_layers': 2, 'num_heads': 2}
    config = {
        'model': {
            'type': 'UniCL',
            'image_encoder': {'type': 'CoSwin', 'arch': image, 'img_size': 32, 'drop_path_rate': 0.0, 'with_cp': True},
            'text_encoder': {'type': 'CLIPTextTower', 'arch': text, 'vocab_size': 600, 'context_length': 24},
            'tokenizer': {'type': 'CLIPTokenizer', 'vocab_size': 600, 'context_length': 24},
            'embed_dims': 8,
        },
        'train_dataloader': {
            'batch_size': 4,
            'num_workers': 0,
            'dataset': {'type': 'ToyPairs'},
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            'collate_fn': {'type': 'pseudo_collate'},
        },
        'train_cfg': {'type': 'IterBasedTrainLoop', 'max_iters': 2},
        # not Adam, which makes steps of the rounding of gradients that are zero, such as those of keys' biases
        'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 1.0}},
        'custom_hooks': [],
        **dict.fromkeys(('val_cfg', 'val_dataloader', 'val_evaluator')),
        **dict.fromkeys(('test_cfg', 'test_dataloader', 'test_evaluator')),
    }
    graph = {'backend': 'aot_eager', 'fullgraph': True}

    def weights(name, **options):
        torch._dynamo.reset()
        counters.clear()
        train(name, **config, **options)
        state = torch.load(tmp_path / name / 'iter_2.pth', weights_only=True)['state_dict']
        return state, counters['stats']['unique_graphs']

    plain, none = weights('plain')
    by_part, parts = weights('parts', parallelize={'compile': graph})
    by_block, blocks = weights('blocks', parallelize={'blocks': ['WindowBlock', 'TextBlock'], 'compile': graph})
    # one a tower; one for all blocks of CoSwin's stage with shift, one for those without, one for the text tower's
    assert (none, parts, blocks) == (0, 2, 3)
    for compiled in (by_part, by_block):
        assert compiled.keys() == plain.keys()
        for key, value in plain.items():
            torch.testing.assert_close(compiled[key], value, rtol=1e-4, atol=1e-4, msg=lambda t, key=key: f'{key}: {t}')


def test_bad_options(train):
    with pytest.raises(UsageError, match='parallelize must have blocks, compile or .* may have blocks, .*got .*shrd'):
        check_options({'blocks': ['X'], 'shrd': True})
    with pytest.raises(UsageError, match='must have blocks, compile or sharded_checkpoints'):
        check_options({'shard': True})
    for blocks in ('Block', None, [3]):
        with pytest.raises(UsageError, match=r'parallelize.blocks is .*; expected a list of class names, as'):
            check_options({'blocks': blocks})
    for key in ('shard', 'meta_init', 'sharded_checkpoints', 'reshard_after_forward'):
        with pytest.raises(UsageError, match=f"parallelize.{key} is 'False'; expected True or False"):
            check_options({'blocks': ['Sequential'], key: 'False'})
    with pytest.raises(UsageError, match="torch.compile has no argument 'mod'; did you mean 'mode'"):
        train(**PLAIN, parallelize={'compile': {'mod': 'default'}})
    with pytest.raises(UsageError, match='ToyModel has no blocks named'):
        parallelize(ToyModel(), shard=True, compile=True)
    with pytest.raises(
        UsageError, match='parallelize.blocks: ToyModel has no CoSwinBlock; it has Sequential, ToyModel'
    ):
        parallelize(ToyModel(), ['CoSwinBlock'])
    with pytest.raises(UsageError, match="parallelize.param_dtype='int8' is none of"):
        parallelize(ToyModel(), ['Sequential'], shard=True, param_dtype='int8')
    # in one process there is nothing to shard over
    assert train(**PLAIN, parallelize={'blocks': ['Sequential'], 'shard': True}).iter == 17


def test_ema_of_a_sharded_model_is_refused(two_processes, train):
    def work():
        with pytest.raises(UsageError, match='cannot be used with EMAHook'):
            train(launcher='pytorch', parallelize={'blocks': ['Sequential'], 'shard': True})

    two_processes(work)


def test_the_config_key_is_known():
    from florence_mm.config.check import check_config

    check_config(Config(toy_config('x', parallelize={'blocks': ['Sequential']})))


def test_a_scalar_that_would_change_the_order_is_refused():
    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))
            self.table = nn.Parameter(torch.zeros(3))

    from florence_mm.engine.parallelize import _give_scalars_a_dimension, unsharded_layout

    with pytest.raises(UsageError, match='a 0-d parameter of Wrong stands before others of its module'):
        _give_scalars_a_dimension(nn.Sequential(Wrong()).get_submodule('0'))
    model = nn.Sequential(ToyModel(), nn.Linear(1, 1))
    names, layout = [name for name, _ in model.named_parameters()], unsharded_layout(model)
    _give_scalars_a_dimension(model)
    assert unsharded_layout(model) == layout and '0.log_scale' in names
    assert model[0].log_scale.ndim == 0
