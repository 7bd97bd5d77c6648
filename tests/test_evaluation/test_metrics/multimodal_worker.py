"""Answers and captions of a mediocre model and their distributed evaluation."""

from mmengine import dist
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator

import florence_mm  # noqa: F401
from florence_mm.evaluation import CaptionScores, VQAAccuracy

WORDS = ('a', 'two', 'dogs', 'dog', 'red', 'cat', 'on', 'in', 'of', 'sits', 'grass', 'ball', 'with', 'and', 'an', 'the')
TYPES = ('yes/no', 'number', 'other')


def make_samples(n):
    """Samples of a mediocre model; some questions are not annotated."""
    samples = []
    for i in range(n):
        said = [f'answer {(i * i + k * (k % 3)) % 4}' for k in range(10)]
        texts = [' '.join(WORDS[(i * j + k * k) % 16] for k in range(4 + j)) for j in range(1, 1 + i % 3 + 1)]
        sample = {
            'question_id': 7 * (n - i),
            'pred_answer': f'Answer {i % 4}.',
            'question_type': f'type {i % 5}',
            'answer_type': TYPES[i % 3],
            'answers': said,
            'img_id': i,
            'pred_caption': ' '.join(WORDS[(i + k * k) % 16] for k in range(3 + i % 5)),
            'texts': texts,
        }
        if i % 6 == 5:
            del sample['answers']
        samples.append(sample)
    return samples


def evaluate(n, folder, launcher=None):
    if launcher:
        # through the module: florence_mm patches the function there
        dist.init_dist(launcher, backend='gloo')
    samples = make_samples(n)
    metrics = [
        VQAAccuracy(outfile=f'{folder}/answers.json', per_question_type=True, table_rows=0),
        CaptionScores(outfile=f'{folder}/captions.json'),
    ]
    evaluator = Evaluator(metrics)
    evaluator.dataset_meta = {'num_skipped': 3}
    # pads the last round, so that some samples come twice
    for index in DefaultSampler(samples, shuffle=False):
        evaluator.process([samples[index]])
    return evaluator.evaluate(n)
