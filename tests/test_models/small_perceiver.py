"""Small Perceivers: image backbones, what decodes their latents, and the language model over bytes."""

import torch
from instances import Small
from kinds import Backbone, Kind, batch_of, numbers, type_of
from small_coswin import COSWIN
from whole_kinds import TEXTS, total

LATENTS, WIDTH = 5, 16
ARCH = {'num_latents': LATENTS, 'embed_dims': WIDTH, 'depth': 2, 'num_blocks': 2, 'num_heads': 2}
PERCEIVER = {'type': 'Perceiver', 'arch': ARCH, 'img_size': 16, 'num_bands': 3}
IMAGES = Backbone((3, 12, 20))
MAPS = {'inputs': 'map', 'stem': {**COSWIN, 'drop_path_rate': 0.0, 'out_indices': (1, 2)}, 'img_size': 32}
BYTES = {
    'type': 'PerceiverMaskedLM',
    'encoder': {'num_latents': LATENTS, 'embed_dims': WIDTH, 'depth': 2, 'num_heads': 2, 'cross_heads': 2}
    | {'qk_channels': 8, 'v_channels': WIDTH},
    'token_dims': 12,
    'max_text_len': 30,
    'decoder_heads': 2,
    'decoder_qk_channels': 8,
    'probability': 0.9,
}


class Decoder(Kind):
    """Latents to a vector an image."""

    def items(self, module):
        return [numbers(LATENTS, WIDTH, seed=seed).to(type_of(module)) for seed in range(3)]

    def outputs(self, module, items):
        (out,) = module((batch_of(items, (LATENTS, WIDTH)).to(type_of(module)),))
        return [{'decoded': row} for row in out]


class Places(Kind):
    """Latents and places to the classes there."""

    discrete = ('pred_places',)

    def items(self, module):
        dtype = type_of(module)
        places = [torch.rand(n, 2, generator=torch.Generator().manual_seed(n)) for n in (4, 1, 6)]
        return [(numbers(LATENTS, WIDTH, seed=seed).to(dtype), places[seed]) for seed in range(3)]

    def _batch(self, module, items):
        from mmpretrain.structures import DataSample

        feats = (batch_of([latents for latents, _ in items], (LATENTS, WIDTH)).to(type_of(module)),)
        return feats, [DataSample(places=x, place_labels=torch.arange(len(x)) % 4) for _, x in items]

    def outputs(self, module, items):
        fields = ('pred_place_scores', 'pred_places')
        samples = module.predict(*self._batch(module, items))
        return [{field: sample.get(field) for field in fields} for sample in samples]

    def loss(self, module, items):
        return total(module.loss(*self._batch(module, items)))


class Bytes(Kind):
    """Texts to the logits of all their bytes, and to texts without mask tokens."""

    discrete = ('pred_text',)

    def items(self, model):
        return list(TEXTS)

    def _samples(self, items):
        from mmpretrain.structures import DataSample

        return [DataSample(text=text) for text in items]

    def outputs(self, model, items):
        logits = model(None, self._samples(items))
        filled = model(None, self._samples(items), mode='predict')
        lengths = model.tokenizer(items, 30).mask.sum(1)
        outputs = [{'logits': row[:length]} for row, length in zip(logits, lengths, strict=True)]
        return [
            {**out, **({'pred_text': sample.pred_text} if 'pred_text' in sample else {})}
            for out, sample in zip(outputs, filled, strict=True)
        ]

    def loss(self, model, items):
        return total(model(None, self._samples(items), mode='loss'))


DECODER = {'type': 'PerceiverDecoder', 'in_channels': WIDTH}
PLACES = {'type': 'PlaceQueryHead', 'num_classes': 4, 'in_channels': WIDTH, 'resolution': (8, 8), 'num_bands': 3}

SMALL = {
    'Perceiver': Small(PERCEIVER, IMAGES, ['NamesNoDecay']),
    'Perceiver-learned': Small({**PERCEIVER, 'inputs': 'learned', 'stem_channels': 8}, IMAGES, ['NamesNoDecay']),
    'Perceiver-map': Small({**PERCEIVER, **MAPS}, Backbone((3, 32, 40)), ['NamesNoDecay']),
    'Perceiver-rereads': Small(
        {**PERCEIVER, 'arch': {**ARCH, 'num_reads': 2, 'mlp_ratio': 2}, 'out_type': 'avg'}, IMAGES, ['NamesNoDecay']
    ),
    'PerceiverDecoder': Small(DECODER, Decoder(), ['NamesNoDecay']),
    'PerceiverDecoder-tasks': Small({**DECODER, 'num_queries': 3, 'query_dims': 8}, Decoder(), ['NamesNoDecay']),
    'PlaceQueryHead': Small(PLACES, Places(), refuses_none="no 'places'"),
    'PlaceQueryHead-chunks': Small({**PLACES, 'chunk_size': 2, 'query_dims': 8}, Places(), refuses_none="no 'places'"),
    'PerceiverMaskedLM': Small(BYTES, Bytes(), ['NamesNoDecay'], refuses_none='give samples with text'),
}
