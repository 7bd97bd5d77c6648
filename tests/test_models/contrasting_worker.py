"""A small model with towers that a momentum model copies, and what one of several processes learns with it."""

from copy import deepcopy

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from florence_mm.models.multimodal import VisionLanguageModel
from florence_mm.models.multimodal.protocol import Fused
from florence_mm.models.tokenizers.roberta import RobertaTextTokenizer
from florence_mm.registry import MODELS

#: Two texts are equal, of which the processes have one each.
TEXTS = ['a red two', 'no', 'two dogs', 'is a dog by it', 'a red two', 'three', 'night', 'a cat']
IMAGES = ['a', 'b', 'b', 'c', 'd', 'e', 'f', 'g']  # as data sets number them
C, D = 6, 4


class Towers(nn.Module):
    """Four patches of a picture; words and their sum."""

    def __init__(self, vocab_size):
        super().__init__()
        self.patches, self.words = nn.Conv2d(3, C, 4, 4), nn.Embedding(vocab_size, C)

    def encode_image(self, inputs):
        return self.patches(inputs).tanh().flatten(2).transpose(1, 2)

    def pool_image(self, image_tokens):
        return image_tokens[:, 0] + image_tokens[:, 3]

    def pool_text(self, tokens):
        weights = tokens.mask[..., None] * torch.arange(1, tokens.mask.shape[1] + 1)[:, None]
        return (self.words(tokens.input_ids) * weights).sum(1).tanh()


@MODELS.register_module()
class Contrasting(VisionLanguageModel):
    """It fuses by products of means, so that each word and each patch matters."""

    def __init__(self, heads, **kwargs):
        super().__init__(RobertaTextTokenizer(), C, 12, **kwargs)
        self.parts = Towers(self.tokenizer.vocab_size)
        self.add_heads(heads)

    def towers(self):
        return self.parts

    def copy_towers(self):
        return deepcopy(self.parts)

    def encode_image(self, inputs):
        return self.parts.encode_image(inputs)

    def pool_image(self, image_tokens):
        return self.parts.pool_image(image_tokens)

    def pool_text(self, tokens):
        return self.parts.pool_text(tokens)

    def encode_tokens(self, tokens):
        return self.parts.words(tokens.input_ids)

    def fuse(self, text_tokens, text_mask, image_tokens):
        text = text_tokens * text_mask[..., None]
        summed = torch.cat([text.sum(1) * image_tokens.mean(1), text.sum(1).sin() * image_tokens[:, 1]], 1)
        return Fused(text, image_tokens, summed)


MOMENTUM = {'embed_dims': D, 'momentum': 0.5, 'queue_size': 16, 'alpha_steps': 4}


def build(itc=MOMENTUM, negatives='all', seed=0):
    torch.manual_seed(seed)
    heads = {'itc': {'type': 'FusionITCHead', **itc}}
    if negatives:
        heads['itm'] = {'type': 'FusionITMHead', 'negatives': negatives}
    model = Contrasting(heads).double()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.4)
    return model


def pictures(step=0):
    return torch.randn(len(TEXTS), 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3 + step))


def samples(texts=TEXTS, images=IMAGES):
    from mmpretrain.structures import DataSample

    return [DataSample(text=text, img_id=image) for text, image in zip(texts, images, strict=True)]


def learn(model, take=slice(None), steps=2, of=None):
    """Losses, gradients and what is kept after some steps with the pairs of the process."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    optimizer = torch.optim.SGD([p for p in (of or model).parameters() if p.requires_grad], 0.1)
    seen = {}
    for step in range(steps):
        torch.manual_seed(10 + step + 100 * rank)  # negatives are drawn by the first process for all
        losses = model(pictures(step)[take], samples(TEXTS[take], IMAGES[take]), mode='loss')
        optimizer.zero_grad()
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        seen[step] = {name: value.detach().clone() for name, value in losses.items()}
        for name, parameter in (of or model).named_parameters():
            if parameter.grad is not None:
                seen[f'{step} gradient of {name}'] = parameter.grad.clone()
        optimizer.step()
    seen.update({f'kept {name}': value.clone() for name, value in (of or model).state_dict().items()})
    return seen


def work(out, itc, negatives):
    from torch.nn.parallel import DistributedDataParallel

    dist.init_process_group('gloo')
    rank, share = dist.get_rank(), len(TEXTS) // dist.get_world_size()
    model = build(itc, negatives)
    seen = learn(DistributedDataParallel(model), slice(rank * share, (rank + 1) * share), of=model)
    torch.save(seen, f'{out}.{rank}')
    dist.destroy_process_group()


def unit(x):
    return F.normalize(x, dim=1)
