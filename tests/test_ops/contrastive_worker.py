"""What one process of the distributed loss tests does."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from florence_mm.ops.contrastive import unified_contrastive_loss

BATCH = 12
# with 2 processes of 6 and 3 of 4, labels 1, 2 and 7 have positives on other processes
LABELS = torch.tensor([7, 1, 2, 2, -5, 1, 3, 7, 7, 2, 9, 2**62])


def dense_loss(image, text, labels, scale):
    """The paper's equations with every matrix written out."""
    logits = scale * image @ text.T
    target = (labels[:, None] == labels).to(logits)
    target = target / target.sum(1, keepdim=True)
    i2t = -(target * logits.log_softmax(1)).sum(1).mean()
    t2i = -(target * logits.T.log_softmax(1)).sum(1).mean()
    return i2t, t2i


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4))
        self.text = nn.Linear(3, 4)
        self.logit_scale = nn.Parameter(torch.tensor(1.7))

    def forward(self, x, y):
        return F.normalize(self.image(x), dim=1), F.normalize(self.text(y), dim=1), self.logit_scale.exp()


def gradients(model, group=None, rank=0, world=1):
    """Parameter gradients of the loss on this process's share of the batch, and the loss."""
    data = torch.Generator().manual_seed(5)
    x = torch.randn(BATCH, 5, generator=data, dtype=torch.float64)
    y = torch.randn(BATCH, 3, generator=data, dtype=torch.float64)
    mine = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    image, text, scale = model(x[mine], y[mine])
    if group is None:
        i2t, t2i = dense_loss(image, text, LABELS, scale)
    else:
        i2t, t2i = unified_contrastive_loss(image, text, LABELS[mine], scale, chunk_size=3, group=group)
    # unequal weights: each direction's gradient is checked by itself
    (i2t + 0.25 * t2i).backward()
    names = {name.removeprefix('module.'): p.grad for name, p in model.named_parameters()}
    return names | {'i2t': i2t.detach(), 't2i': t2i.detach()}


def work(out):
    dist.init_process_group('gloo')
    rank = dist.get_rank()
    result = {}
    for size in (1, 2, 3):
        group = dist.new_group(range(size))
        if rank < size:
            torch.manual_seed(0)
            model = DistributedDataParallel(Towers().double(), process_group=group)
            result[f'{size}'] = gradients(model, group, rank, size)
    uneven = torch.randn(4 - rank // 2, 6)
    try:
        unified_contrastive_loss(uneven, uneven, torch.arange(len(uneven)), torch.tensor(1.0))
        result['uneven'] = 'no error'
    except ValueError as error:
        result['uneven'] = str(error)
    torch.save(result, f'{out}.{rank}')
    dist.destroy_process_group()
