"""A small METER for tests, and what one of several processes does with it."""

import torch
import torch.distributed as dist
from torch import nn

import florence_mm  # noqa: F401  (first, it patches mmpretrain)
from florence_mm.models.heads.multimodal import mlm
from florence_mm.models.multimodal import METER

QUESTIONS = ['how many dogs are there', 'is it red', 'which is the largest', 'what colour is the dog on the left']
ANSWERS = ['two', 'red', 'yes', 'no', 'blue']


class ToyEncoder(nn.Module):
    """A backbone of one layer: maps of a quarter of the side."""

    num_features = 6

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, 4)
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        return x, self.conv(x).tanh()


def clip_text():
    tower = {'arch': {'embed_dims': 16, 'num_layers': 1, 'num_heads': 2}, 'context_length': 20, 'vocab_size': 600}
    return {'type': 'CLIPTokenEncoder', 'tower': tower}, {'type': 'MaskedCLIPTokenizer', 'vocab_size': 600}


def roberta_text():
    config = {
        'vocab_size': 261,
        'hidden_size': 16,
        'num_hidden_layers': 2,
        'num_attention_heads': 2,
        'intermediate_size': 32,
        'max_position_embeddings': 60,
        'hidden_dropout_prob': 0.0,
        'attention_probs_dropout_prob': 0.0,
    }
    return {'type': 'RobertaTextEncoder', 'config': config}, {'type': 'RobertaTextTokenizer'}


def build(heads=('itm', 'mlm', 'vqa'), text=clip_text, spread=0.2, **kwargs):
    """A METER whose weights are drawn wide enough for outputs to differ."""
    torch.manual_seed(0)
    encoder, tokenizer = text()
    known = {
        'itm': {'type': 'FusionITMHead'},
        'mlm': {'type': 'FusionMLMHead', 'probability': 0.5},
        'vqa': {'type': 'FusionVQAHead', 'answers': ANSWERS},
    }
    heads = {name: known[name] for name in heads} if isinstance(heads, tuple) else heads
    fusion = {'hidden_size': 16, 'num_layers': 2, 'num_heads': 2, 'drop_rate': 0.0, 'attn_drop_rate': 0.0}
    arguments = {'fusion': fusion, 'heads': heads, 'max_text_len': 20}
    model = METER(ToyEncoder(), encoder, tokenizer, **{**arguments, **kwargs})
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and 'embed' not in name:
            nn.init.normal_(parameter, std=spread)
    return model


def pictures(count=4, side=8):
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(3)).byte()


def batch(texts=QUESTIONS, inputs=None):
    from mmpretrain.structures import DataSample

    inputs = pictures(len(texts)) if inputs is None else inputs
    samples = [
        DataSample(
            text=text,
            question_id=10 + i,
            answer_labels=torch.tensor([i % 5, (i + 2) % 5]),
            answer_scores=torch.tensor([1.0, 0.3]),
        )
        for i, text in enumerate(texts)
    ]
    return {'inputs': list(inputs), 'data_samples': samples}


def preprocessed(model, data=None, training=True):
    return model.data_preprocessor(batch() if data is None else data, training)


def every_second_token(tokens, tokenizer, *_):
    """In place of a random mask: the same tokens whichever process holds the text."""
    chosen = tokens.mask & (torch.arange(tokens.mask.shape[1]) % 2 == 1)
    return mlm.TokenBatch(torch.where(chosen, tokenizer.mask_token_id, tokens.input_ids), tokens.mask), chosen


def gradients(model, data):
    """Gradients of one training step as mmengine takes it."""
    from mmengine.optim import OptimWrapper

    grads = {}

    class Keep(OptimWrapper):
        def step(self):
            grads.update((n.removeprefix('module.'), p.grad.clone()) for n, p in model.named_parameters())

    model.train_step(data, Keep(torch.optim.SGD(model.parameters(), 1.0)))
    return grads


def one_process(rank, world, rendezvous, out):
    """Gradients of the process with its share of the batch."""
    from mmengine.model import MMDistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{rendezvous}', rank=rank, world_size=world)
    mlm.mask_tokens = every_second_token
    data, share = batch(), len(QUESTIONS) // world
    mine = {k: v[rank * share : (rank + 1) * share] for k, v in data.items()}
    torch.save(gradients(MMDistributedDataParallel(build(('mlm', 'vqa')).double()), mine), f'{out}.{rank}')
    dist.destroy_process_group()
