"""Speed of class features with 81 templates, compared with open_clip's builder of zero-shot classifiers.

    python tools/benchmarks/class_features.py [--classes K ...] [--peer-classes K] [--rounds N] [--dtype bfloat16]
        [--out FILE]

Both sides have the text tower of CLIP ViT-B (12 layers, 512 channels) with the same weights, the first K class names of
ImageNet and the 81 templates of UniCL's public code, and tokenize; one thread, CPU time. The features of open_clip's
classes are compared first. Its builder encodes ten classes at a time, each text with all of its 77 tokens, so that its
time a class does not depend on their number; that of a few is measured, in turns with ours of each K. Ours falls with
K, as equal beginnings of texts are computed once. Exit status 1 below the bar.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.language.class_names import load_class_names
from florence_mm.language.prompts import get_templates
from florence_mm.models.algorithms import UniCL
from florence_mm.utils.files import write_atomic

BAR = 20.0
_LEAST_COSINE = 0.9999


class Blank(nn.Module):
    """An image tower that is never asked."""

    num_features = 8


class Peer(nn.Module):
    """open_clip's text tower and projection, with the weights of ours."""

    def __init__(self, ours: UniCL) -> None:
        from open_clip.transformer import TextTransformer  # florence_mm patches the stack before

        super().__init__()
        self.tower = TextTransformer(output_dim=512)
        state = ours.text_encoder.state_dict()
        state = {key.replace('resblocks', 'transformer.resblocks'): value for key, value in state.items()}
        self.tower.load_state_dict(state | {'text_projection': ours.text_projection.data})

    def encode_text(self, texts: Tensor, normalize: bool) -> Tensor:
        """What the builder calls."""
        features = self.tower(texts)
        return F.normalize(features, dim=-1) if normalize else features


def timed(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """CPU seconds and result of a call."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def measure(counts: Sequence[int], peer_count: int, rounds: int, dtype: str) -> list[dict[str, float]]:
    """Compare, and time both sides in turns; returns a dict for each number of classes.

    Raises:
        ValueError: features differ.
    """
    from open_clip import build_zero_shot_classifier
    from open_clip.tokenizer import SimpleTokenizer

    torch.manual_seed(0)
    tower = {'type': 'CLIPTextTower', 'arch': 'base', 'act': 'gelu', 'norm_eps': 1e-5}
    ours = UniCL(Blank(), tower, {'type': 'CLIPTokenizer'}, embed_dims=512).eval()
    peer, tokenizer = Peer(ours).eval(), SimpleTokenizer()
    kept = None if dtype == 'float32' else getattr(torch, dtype)
    names, templates = load_class_names('imagenet1k'), get_templates('imagenet')
    calls = [template.format for template in templates]

    def build() -> Tensor:
        return build_zero_shot_classifier(peer, tokenizer, names[:peer_count], calls, peer_count).T

    expected = build()
    results = []
    for count in counts:
        cosine = float(
            (ours.encode_classes(names[:count], dtype=kept)[: len(expected)] * expected[:count]).sum(1).min()
        )
        if cosine < _LEAST_COSINE:
            raise ValueError(f'cosine {cosine:.6f} with the features of open_clip, below {_LEAST_COSINE}')
        own, theirs = [], []
        for _ in range(rounds):
            own.append(timed(lambda count=count: ours.encode_classes(names[:count], dtype=kept))[0] / count)
            theirs.append(timed(build)[0] / peer_count)
        ratio = statistics.median(b / a for a, b in zip(own, theirs, strict=True))
        results.append(
            {
                'classes': count,
                'ratio': round(ratio, 2),
                'ours_ms_a_class': round(1e3 * statistics.median(own), 1),
                'open_clip_ms_a_class': round(1e3 * statistics.median(theirs), 1),
                'least_cosine': round(cosine, 7),
            }
        )
        print(json.dumps(results[-1]), flush=True)
    return results


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description='Time class features with 81 templates beside open_clip.')
    parser.add_argument(
        '--classes', type=int, nargs='+', default=[10, 100], help='numbers of classes (default: 10 100)'
    )
    parser.add_argument('--peer-classes', type=int, default=10, help='classes of open_clip, in a batch (default: 10)')
    parser.add_argument('--rounds', type=int, default=3, help='how often both sides run in turn (default: 3)')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32', help='of our text tower')
    parser.add_argument('--out', help='write the results to this JSON file')
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = measure(args.classes, args.peer_classes, args.rounds, args.dtype)
    if args.out:
        write_atomic(args.out, json.dumps(results, indent=1))
    return int(any(one['ratio'] < BAR for one in results))


if __name__ == '__main__':
    sys.exit(main())
