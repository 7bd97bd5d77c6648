"""Samples of a mediocre model and their distributed evaluation."""

import torch
from mmengine import dist
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator

import florence_mm  # noqa: F401
from florence_mm.evaluation import ImageTextRecall, ZeroShotAccuracy


def make_samples(n):
    """Samples of a mediocre model on 5 classes; captions repeat."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for i in range(n):
        image = torch.nn.functional.normalize(torch.randn(6, generator=generator), dim=0)
        texts = [f'caption {i % 7}', f'own caption {i}'][: 1 + i % 2]
        # equal captions must have equal features
        text_feat = torch.stack([torch.randn(6, generator=torch.Generator().manual_seed(hash_of(t))) for t in texts])
        samples.append(
            {
                'pred_score': torch.randn(5, generator=generator).softmax(0),
                'gt_label': torch.tensor([i % 5]),
                'image_feat': image,
                'text_feat': torch.nn.functional.normalize(text_feat, dim=1),
                'texts': texts,
            }
        )
    return samples


def hash_of(text):
    return sum(ord(char) * 31**i for i, char in enumerate(text)) % 2**31


def evaluate(n, launcher=None):
    if launcher:
        # through the module: florence_mm patches the function there
        dist.init_dist(launcher, backend='gloo')
    samples = make_samples(n)
    evaluator = Evaluator([ZeroShotAccuracy(per_class=True, table_rows=0), ImageTextRecall()])
    evaluator.dataset_meta = {'classes': tuple('abcde'), 'num_skipped': 3}
    # pads the last round, so that some samples come twice
    sampler = DefaultSampler(samples, shuffle=False)
    for index in sampler:
        evaluator.process([samples[index]])
    return evaluator.evaluate(n)
