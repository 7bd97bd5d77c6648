"""Speed and memory of retrieval scores, compared with plain implementations on the whole matrix of similarities.

    python tools/benchmarks/retrieval.py [--images N] [--dims D] [--rounds N] [--out FILE]

N images with five texts each, features as of a trained model: a text is its image's feature and noise. Ours is
`two_way_ranks`, which all scores of retrieval come from. `argsort` sorts each row and each column of the whole matrix
and looks up the places of correct items, as the public evaluations of CLIP, ALBEF and BLIP do; `compare` counts, in the
whole matrix once a direction, how many are not below the best correct one, the least that a plain implementation can
do. All ranks are compared first, and must be equal; one thread, CPU time in turns. Memory is the most that a process of
its own needs while it ranks. Exit status 1 if ours is not three times as fast as `argsort`.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from florence_mm.evaluation.functional import summarize_ranks, two_way_ranks
from florence_mm.utils.files import write_atomic

BAR = 3.0
CAPTIONS = 5
Ranks = tuple[Tensor, Tensor]


def make_data(count: int, dims: int) -> Ranks:
    """Features of images ``(N, D)`` and of their texts ``(5 N, D)``."""
    generator = torch.Generator().manual_seed(0)
    images = normalize(torch.randn(count, dims, generator=generator), dim=1)
    noise = normalize(torch.randn(CAPTIONS * count, dims, generator=generator), dim=1)
    return images, normalize(images.repeat_interleave(CAPTIONS, 0) + 5 * noise, dim=1)


def ours(images: Tensor, texts: Tensor) -> Ranks:
    """One product in pieces."""
    texts_of = [range(CAPTIONS * i, CAPTIONS * (i + 1)) for i in range(len(images))]
    return two_way_ranks(images, texts, texts_of, [[text // CAPTIONS] for text in range(len(texts))])


def argsort(images: Tensor, texts: Tensor) -> Ranks:
    """The whole matrix, sorted row by row and column by column."""
    similarity = (images @ texts.T).numpy()
    ranks = np.empty(len(images), np.int64)
    for i, row in enumerate(similarity):
        order = np.argsort(-row)
        ranks[i] = min((order == text).argmax() for text in range(CAPTIONS * i, CAPTIONS * (i + 1)))
    text_ranks = np.empty(len(texts), np.int64)
    for text, column in enumerate(similarity.T):
        text_ranks[text] = (np.argsort(-column) == text // CAPTIONS).argmax()
    return torch.from_numpy(ranks), torch.from_numpy(text_ranks)


def compare(images: Tensor, texts: Tensor) -> Ranks:
    """The whole matrix, counted in both directions."""
    similarity = images @ texts.T
    owners = torch.arange(len(images)).repeat_interleave(CAPTIONS)
    right = similarity[owners, torch.arange(len(texts))]  # (M,)
    best = right.view(-1, CAPTIONS).amax(1)
    wrong = (similarity >= best[:, None]).sum(1) - (right.view(-1, CAPTIONS) >= best[:, None]).sum(1)
    return wrong, (similarity >= right).sum(0) - 1


SIDES: dict[str, Callable[[Tensor, Tensor], Ranks]] = {'ours': ours, 'argsort': argsort, 'compare': compare}


def memory_mb(side: str, count: int, dims: int) -> float:
    """Memory that one side needs above the features', in MB; meant for a fresh process."""
    torch.set_num_threads(1)
    features = make_data(count, dims)
    SIDES[side](*(x[: CAPTIONS * 10] if i else x[:10] for i, x in enumerate(features)))  # libraries are loaded
    before = int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize() / 1024
    Path('/proc/self/clear_refs').write_text('5')  # the highest memory is that of now
    SIDES[side](*features)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description='Time retrieval scores beside plain implementations.')
    parser.add_argument('--images', type=int, default=5000, help='with five texts each (default: 5000)')
    parser.add_argument('--dims', type=int, default=512, help='values of a feature (default: 512)')
    parser.add_argument('--rounds', type=int, default=3, help='how often all sides run in turn (default: 3)')
    parser.add_argument('--out', help='write the results to this JSON file')
    args = parser.parse_args()
    torch.set_num_threads(1)
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), max_tasks_per_child=1) as pool:
        memory = {side: pool.submit(memory_mb, side, args.images, args.dims).result() for side in SIDES}
    features = make_data(args.images, args.dims)
    found = {side: call(*features) for side, call in SIDES.items()}
    for side, ranks in found.items():
        unequal = sum(int((a != b).sum()) for a, b in zip(ranks, found['ours'], strict=True))
        if unequal:
            raise ValueError(f'{unequal} ranks of ours and {side} differ; nothing was timed')
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(args.rounds):
        for side, call in SIDES.items():
            start = time.process_time()
            call(*features)
            times[side].append(time.process_time() - start)
    results = [
        {
            'side': side,
            'seconds': round(statistics.median(times[side]), 2),
            'ratio': round(statistics.median(b / a for a, b in zip(times['ours'], times[side], strict=True)), 2),
            'memory_mb': round(memory[side]),
            'texts_to_images_R@1': round(summarize_ranks(found[side][1], args.images)['R@1'], 4),
        }
        for side in SIDES
    ]
    for result in results:
        print(json.dumps(result))
    if args.out:
        write_atomic(args.out, json.dumps(results, indent=1))
    return int(next(one['ratio'] for one in results if one['side'] == 'argsort') < BAR)


if __name__ == '__main__':
    sys.exit(main())
