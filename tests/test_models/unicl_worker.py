"""A small UniCL for tests, and what one of several processes does with it."""

import torch
import torch.distributed as dist
from torch import nn

import florence_mm  # noqa: F401  (first, it patches mmpretrain)
from florence_mm.language.labels import text_label
from florence_mm.models.algorithms import UniCL
from florence_mm.models.text import CLIPTextTower
from florence_mm.models.tokenizers import CLIPTokenizer

# equal texts lie on different processes
TEXTS = ['a dog', 'two cats', 'A Dog.', 'one', 'three big red balls', 'two  cats', 'a dog', 'night']


class ToyEncoder(nn.Module):
    """A backbone of one layer: the input itself, and maps of 2 x 2."""

    num_features = 6

    def __init__(self, drop=0.0):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, 4)
        self.drop = nn.Dropout(drop)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x, self.drop(self.conv(x).tanh())


def build(drop=0.0, **kwargs):
    torch.manual_seed(0)
    text = CLIPTextTower({'embed_dims': 16, 'num_layers': 1, 'num_heads': 2}, context_length=12, vocab_size=600)
    tokenizer = CLIPTokenizer(context_length=12, vocab_size=600)
    return UniCL(ToyEncoder(drop), text, tokenizer, **{'embed_dims': 8, 'logit_scale_init': 2.0} | kwargs)


def batch(texts=TEXTS):
    from mmpretrain.structures import DataSample

    images = torch.randint(0, 256, (len(texts), 3, 8, 8), generator=torch.Generator().manual_seed(3)).byte()
    return {'inputs': list(images), 'data_samples': [DataSample(text=t, label_key=text_label(t)) for t in texts]}


def gradients(model, data):
    """Gradients of one training step as mmengine takes it, and what it logs."""
    from mmengine.optim import OptimWrapper

    grads = {}

    class Keep(OptimWrapper):
        def step(self):
            grads.update((n.removeprefix('module.'), p.grad.clone()) for n, p in model.named_parameters())

    log = model.train_step(data, Keep(torch.optim.SGD(model.parameters(), 1.0)))
    return grads | {f'log.{k}': torch.as_tensor(v).detach() for k, v in log.items()}


def weights_after_a_step(model, data, optimizer):
    """Weights after one training step with the optimizer that a config describes."""
    from mmengine.optim import build_optim_wrapper

    import florence_mm.engine  # noqa: F401  (registers)

    wrapper = build_optim_wrapper(
        model,
        {
            'constructor': 'florence_mm.NoDecayOptimWrapperConstructor',
            'optimizer': optimizer | {'lr': 0.1, 'weight_decay': 0.5},
        },
    )
    model.train_step(data, wrapper)
    return {name.removeprefix('module.'): p.detach().clone() for name, p in model.named_parameters()}


def work(out):
    from mmengine.model import MMDistributedDataParallel

    dist.init_process_group('gloo')
    rank, world = dist.get_rank(), dist.get_world_size()
    data, share = batch(), len(TEXTS) // world
    mine = {k: v[rank * share : (rank + 1) * share] for k, v in data.items()}
    result = {
        str(micro): gradients(MMDistributedDataParallel(build(micro_batch=micro).double()), mine) for micro in (None, 3)
    }
    result['own_text'] = gradients(MMDistributedDataParallel(build(positives='own_text').double()), mine)
    result['zero'] = weights_after_a_step(
        MMDistributedDataParallel(build().double()),
        mine,
        {'type': 'ZeroRedundancyOptimizer', 'optimizer_type': 'AdamW'},
    )
    torch.save(result, f'{out}.{rank}')
    dist.destroy_process_group()
