"""Two processes with all of FSDP2, recomputed blocks, compiled blocks and the gradient cache train as one without."""

import torch
from forks import as_ranks
from mmengine.registry import DATASETS
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from florence_mm.engine.parallelize import is_sharded
from florence_mm.models.checkpoints.reading import read_checkpoint

STEPS = 6
SGD = {'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}}
ADAMW = {'optimizer': {'type': 'AdamW', 'lr': 1e-3, 'weight_decay': 0.1}, 'clip_grad': {'max_norm': 1.0}}
SHARD = {'blocks': ['WindowBlock', 'TextBlock'], 'shard': True}
ALL = {**SHARD, 'compile': {'backend': 'eager'}, 'sharded_checkpoints': True}


@DATASETS.register_module()
class FewPairs(Dataset):
    """Images with texts, of which some are equal."""

    metainfo = {}

    def __len__(self):
        return 24

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(int(index))
        image = torch.randint(256, (3, 32, 32), generator=generator, dtype=torch.uint8)
        return {'inputs': image, 'data_samples': DataSample(text=f'text {index % 7}', label_key=int(index % 7))}


def run(batch_size, recompute=False, micro_batch=None, **changes):
    image = {'embed_dims': 8, 'depths': [2], 'num_heads': [2], 'patch_size': 4, 'window_size': 4}
    text = {'embed_dims': 8, 'num_layers': 2, 'num_heads': 2}
    towers = {'drop_path_rate': 0.0, 'with_cp': recompute}
    return {
        'model': {
            'type': 'UniCL',
            'image_encoder': {'type': 'CoSwin', 'arch': image, 'img_size': 32, **towers},
            'text_encoder': {
                **{'type': 'CLIPTextTower', 'arch': text, 'vocab_size': 600, 'context_length': 24},
                'with_cp': recompute,
            },
            'tokenizer': {'type': 'CLIPTokenizer', 'vocab_size': 600, 'context_length': 24},
            'embed_dims': 8,
            'micro_batch': micro_batch,
            # below the first value, so that each step ends at the limit or below
            'max_logit_scale': 2.0,
        },
        'train_dataloader': {
            'batch_size': batch_size,
            'num_workers': 0,
            'dataset': {'type': 'FewPairs'},
            'sampler': {'type': 'DefaultSampler', 'shuffle': True},
            'collate_fn': {'type': 'pseudo_collate'},
        },
        'train_cfg': {'type': 'IterBasedTrainLoop', 'max_iters': STEPS},
        'param_scheduler': [],
        'custom_hooks': [],
        **dict.fromkeys(('val_cfg', 'val_dataloader', 'val_evaluator')),
        **dict.fromkeys(('test_cfg', 'test_dataloader', 'test_evaluator')),
        **changes,
    }


def test_two_processes_train_as_one(train, tmp_path):
    train('sgd', **run(8, optim_wrapper=SGD))
    train('adamw', **run(8, optim_wrapper=ADAMW))
    two = {'launcher': 'pytorch'}

    def work():
        assert is_sharded(train('sgd_shard', **run(4, optim_wrapper=SGD, parallelize=SHARD, **two)).model)
        train('sgd_all', **run(4, True, 2, optim_wrapper=SGD, parallelize=ALL, **two))
        train('adamw_parts', **run(4, True, 2, optim_wrapper=ADAMW, parallelize=SHARD, **two))

    as_ranks(work, 2)
    by_sgd, by_adamw = (read_checkpoint(tmp_path / name / f'iter_{STEPS}.pth')[0] for name in ('sgd', 'adamw'))
    # weights have moved by more than the bounds
    assert all((value - by_adamw[key]).abs().max() > 1e-3 for key, value in by_sgd.items() if key.endswith('weight'))
    for name, file, bound in [
        ('sgd_shard', f'iter_{STEPS}.pth', 1e-5),
        ('sgd_all', f'iter_{STEPS}', 1e-5),
        ('adamw_parts', f'iter_{STEPS}.pth', 5e-5),
    ]:
        one = by_sgd if name.startswith('sgd') else by_adamw
        state = read_checkpoint(tmp_path / name / file)[0]
        assert state.keys() == one.keys()
        for key, value in one.items():
            differences = (state[key] - value).abs()
            if name == 'adamw_parts' and key.endswith(('qkv.bias', 'in_proj_bias')):
                # softmax does not see the bias of keys: its gradient is 0, and Adam makes steps of its rounding
                query, _, values = differences.chunk(3)
                differences = torch.cat([query, values])
            assert differences.max() <= bound, (name, key, differences.max())
