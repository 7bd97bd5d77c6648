"""ViLT beside transformers': masked words of pictures and texts, in inference and in a training step.

    python tools/benchmarks/vilt.py

Weights are random and the same. Outputs are compared first. Each time is the least of several, in turns; a ratio is
transformers' time by ours.
"""

import argparse
import time

import florence_mm  # noqa: F401  # before transformers
import torch
from torch.nn import functional as F
from transformers import ViltConfig, ViltForMaskedLM

from florence_mm.models.checkpoints.formats import convert_state_dict
from florence_mm.models.multimodal import ViLT
from florence_mm.models.tokenizers.protocol import TokenBatch

WORDS = 30522


def build(layers: int) -> tuple[ViltForMaskedLM, ViLT]:
    """transformers' ViLT-B/32 with so many layers, and ours with its weights."""
    torch.manual_seed(0)
    theirs = ViltForMaskedLM(ViltConfig(num_hidden_layers=layers)).eval()
    ours = ViLT(
        {'type': 'BertTextTokenizer'},
        num_layers=layers,
        text={'vocab_size': WORDS},
        layer_norm_eps=1e-12,
        max_patches=None,
        drop_rate=0.0,
        heads={'mlm': {'type': 'FusionMLMHead', 'tied': True, 'vocab_size': WORDS}},
    ).eval()
    ours.load_state_dict(convert_state_dict(theirs.state_dict())[1])
    return theirs, ours


class Both:
    """The same step of both models on one batch."""

    def __init__(self, theirs: ViltForMaskedLM, ours: ViLT, batch: int, side: int, words: int) -> None:
        self.models = {'transformers': theirs, 'florence_mm': ours}
        self.images = torch.randn(batch, 3, side, side)
        self.ids = torch.randint(1000, WORDS, (batch, words))
        lengths = torch.randint(words // 2, words + 1, (batch,))
        lengths[0] = words
        self.mask = torch.arange(words) < lengths[:, None]
        self.ids[~self.mask] = 0
        self.chosen = (torch.rand(batch, words) < 0.15) & self.mask
        self.chosen[:, 1] = True
        self.labels = torch.where(self.chosen, self.ids, -100)

    def hidden(self, name: str) -> torch.Tensor:
        """Fused words ``(B, T, C)``, zeros at padding."""
        model = self.models[name]
        if name == 'transformers':
            states = model.vilt(input_ids=self.ids, attention_mask=self.mask.long(), pixel_values=self.images)
            return states.last_hidden_state[:, : self.ids.shape[1]] * self.mask[..., None]
        tokens = TokenBatch(self.ids, self.mask)
        return model.fuse(model.encode_tokens(tokens), self.mask, model.encode_image(self.images)).text

    def loss(self, name: str) -> torch.Tensor:
        """Loss of masked words."""
        model = self.models[name]
        if name == 'transformers':
            return model(
                input_ids=self.ids, attention_mask=self.mask.long(), pixel_values=self.images, labels=self.labels
            ).loss
        return F.cross_entropy(model.heads['mlm'](self.hidden(name)[self.chosen]), self.ids[self.chosen])

    def infer(self, name: str) -> float:
        """Seconds of an inference."""
        with torch.no_grad():
            return self._timed(self.hidden, name)

    def train(self, name: str) -> float:
        """Seconds of a forward and backward pass."""

        def step(name: str) -> None:
            self.models[name].zero_grad(set_to_none=True)
            self.loss(name).backward()

        return self._timed(step, name)

    @staticmethod
    def _timed(function, name: str) -> float:
        start = time.perf_counter()
        function(name)
        return time.perf_counter() - start

    def check(self) -> float:
        """Largest difference of the words and of the loss.

        Raises:
            ValueError: it is above 1e-4.
        """
        with torch.no_grad():
            words = float((self.hidden('transformers') - self.hidden('florence_mm')).abs().max())
            losses = float((self.loss('transformers') - self.loss('florence_mm')).abs())
        if not max(words, losses) <= 1e-4:
            raise ValueError(f'outputs differ by {words:.1e} and losses by {losses:.1e}; expected at most 1e-4')
        return max(words, losses)


def main() -> None:
    """Compare, time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--layers', type=int, default=12)
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--side', type=int, default=384)
    parser.add_argument('--words', type=int, default=40)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    both = Both(*build(args.layers), args.batch, args.side, args.words)
    print(f'largest difference {both.check():.1e}')
    for what, step in (('inference', both.infer), ('training', both.train)):
        for model in both.models.values():
            model.train(what == 'training')
        least = {name: min(step(name) for _ in range(1)) for name in both.models}
        for _ in range(args.rounds):
            for name in both.models:
                least[name] = min(least[name], step(name))
        ratio = least['transformers'] / least['florence_mm']
        print(f'{what}: transformers {least["transformers"]:.3f} s, florence_mm {least["florence_mm"]:.3f} s, {ratio:.2f}')


if __name__ == '__main__':
    main()
