"""A re-ranked retrieval test that one or several processes run."""

import itertools
import runpy
from pathlib import Path

import torch
from mmpretrain.structures import DataSample
from torch import nn
from torch.nn import functional as F

import florence_mm  # noqa: F401
from florence_mm.engine import FlorenceRunner
from florence_mm.models.algorithms import UniCL
from florence_mm.models.multimodal import RetrievalReranker
from florence_mm.models.text import CLIPTextTower
from florence_mm.models.tokenizers import CLIPTokenizer

tiny = runpy.run_path(str(Path(__file__).parents[1] / 'test_models/tiny_meter.py'))
_NUMBER = itertools.count()
TEXTS = ('a red two', 'a blue five', 'no digits', 'a nine', 'a green one', 'two digits', 'a six')


class Pictures(torch.utils.data.Dataset):
    """Seven captions for eleven pictures: some have two, some share one."""

    metainfo = {'classes': None}

    def __len__(self):
        return 11

    def __getitem__(self, index):
        image = torch.randint(256, (3, 16, 24), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        texts = [TEXTS[index % 7], TEXTS[(3 * index + 1) % 7]][: 1 + index % 2]
        return {'inputs': image, 'data_samples': DataSample(texts=list(dict.fromkeys(texts)), text=texts[0])}


class Mean(nn.Module):
    num_features = 3

    def forward(self, x):
        return (x,)


def make_model():
    torch.manual_seed(1)
    tower = CLIPTextTower({'embed_dims': 16, 'num_layers': 1, 'num_heads': 2}, vocab_size=4096)
    retriever = UniCL(Mean(), tower, CLIPTokenizer(vocab_size=4096), embed_dims=8)
    for parameter in (*tower.parameters(), retriever.image_projection, retriever.text_projection):
        parameter.data = torch.randn(parameter.shape)
    return RetrievalReranker(retriever, tiny['tiny_meter']({'itm': {'type': 'FusionITMHead'}}))


def make_loop(work_dir, launcher='none', batch_size=2, evaluator=None, load_from=None, **options):
    """A runner that is ready to test."""
    options = {'top_k': 3, 'pairs_at_once': 4, **options}
    return FlorenceRunner(
        make_model(),
        str(work_dir),
        test_dataloader={
            'batch_size': batch_size,
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            'dataset': Pictures(),
            'collate_fn': {'type': 'pseudo_collate'},
        },
        test_evaluator=evaluator or {'type': 'florence_mm.ImageTextRecall', 'topk': (1, 2)},
        test_cfg={'type': 'florence_mm.RerankTestLoop', **options},
        launcher=launcher,
        load_from=load_from,
        env_cfg={'dist_cfg': {'backend': 'gloo'}},
        default_scope='florence_mm',
        experiment_name=f'rerank{next(_NUMBER)}',
    )


def dense_scores(options):
    """What re-ranking must give, from all pairs at once."""
    model, data = make_model().eval(), Pictures()
    rows = [data[i] for i in range(len(data))]
    with torch.no_grad():
        inputs = model.data_preprocessor({'inputs': [row['inputs'] for row in rows]})['inputs']
        image_feats = model.retriever.extract_image_feat(inputs)
        used = list(dict.fromkeys(text for row in rows for text in row['data_samples'].texts))
        text_feats = model.retriever.extract_text_feat(used)
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(used))]
        match = model.matcher.match(model.matcher.encode_image(inputs), used, pairs).sigmoid().double()
    match = (match / (1 - match)).log().view(len(rows), len(used))
    similarity = (image_feats @ text_feats.T).double()
    match = match + options['similarity_weight'] * float(model.retriever.temperature()) * similarity
    right = torch.tensor([[text in row['data_samples'].texts for text in used] for row in rows])
    scores = {}
    for way, sim, new, good in (('i2t', similarity, match, right), ('t2i', similarity.T, match.T, right.T)):
        chosen = sim >= sim.topk(options['top_k'], 1).values[:, -1:]
        order = torch.where(chosen, F.normalize(new, p=float('inf')) + 10, sim)  # candidates before all others
        best = order.masked_fill(~good, -1e9).amax(1)
        ranks = ((order >= best[:, None]) & ~good).sum(1)
        scores |= {f'reranked/{way}_R@{k}': (ranks < k).double().mean().item() for k in (1, 2)}
        scores[f'reranked/{way}_MnR'] = (ranks + 1).double().mean().item()
    return scores
