"""Kinds of whole models, and of the heads that are tested inside them; see ``kinds.py``.

Shape legend: ``B`` items, ``T`` tokens, ``S`` image tokens, ``C`` channels.
"""

import torch
from instances import find_smalls
from kinds import Kind, batch_of, numbers, type_of
from mmengine.structures import InstanceData

from florence_mm.models.multimodal.protocol import Fuser, Writer
from florence_mm.models.tokenizers.protocol import TokenBatch

TEXTS = ['a red two', 'no <mask>', 'is a dog by it']


def total(losses):
    """The sum of the losses that mmengine adds up, each of which is of fp32 at least."""
    parts = [value for name, value in losses.items() if 'loss' in name]
    parts = [part for value in parts for part in (value if isinstance(value, list) else [value])]
    assert parts and all(part.dtype in (torch.float32, torch.float64) and part.ndim == 0 for part in parts)
    return sum(parts)


class TwoTowers(Kind):
    """Images, clips or videos and texts to features of one space, and to classes.

    Args:
        shape: of an image, clip or video.
    """

    discrete = ('pred_label',)

    def __init__(self, shape=(3, 32, 32)):
        self.shape = shape

    def items(self, model):
        model.set_classes(['red', 'dogs', 'a two'], templates=['a {}', 'no {}'])
        images = [numbers(*self.shape, seed=seed).to(type_of(model)) for seed in range(3)]
        return [(image, text, label) for label, (image, text) in enumerate(zip(images, TEXTS, strict=True))]

    def _batch(self, model, items):
        from mmpretrain.structures import DataSample

        inputs = batch_of([image for image, _, _ in items], self.shape).to(type_of(model))
        return inputs, [DataSample(text=text, texts=[text], label_key=key) for _, text, key in items]

    def outputs(self, model, items):
        fields = ('image_feat', 'text_feat', 'pred_score', 'pred_label')
        samples = model.predict(*self._batch(model, items))
        return [{field: sample.get(field) for field in fields} for sample in samples]

    def loss(self, model, items):
        return total(model(*self._batch(model, items), mode='loss'))


class FusionHead(Kind):
    """A head of models over images and texts: it is tested in every model that has what it needs.

    Args:
        reads: fields of a sample that its prediction fills.
        discrete: those among them that are chosen.
        fields: of samples for its loss, one dict for each of three.
        does: what only one head of a model may do.
    """

    def __init__(self, reads, discrete=(), fields=({}, {}, {}), does=''):
        self.reads, self.discrete, self.fields, self.does = reads, discrete, fields, does


class VisionLanguage(Kind):
    """Images with texts: their tokens, fused and written ones, and what every head says.

    The heads are those of which there is a small instance and for which the model has what they need; of several that
    do the same, the first.

    Args:
        protocols: that the model fulfils.
        unused: for heads by name: parts of the model that the head alone gives no gradient, with the reason.
        shape: of an image, or of a video.
    """

    pads = True

    def __init__(self, protocols, unused=None, shape=(3, 32, 32)):
        self.protocols, self.unused, self.shape = protocols, unused or {}, shape

    def fitting(self):
        """The heads by name."""
        heads = {name: small for name, small in find_smalls().items() if isinstance(small.kind, FusionHead)}
        return {n: s for n, s in heads.items() if s.registry.get(s.config['type']).needs.__name__ in self.protocols}

    def together(self, head=None):
        """The heads that one model can have, by name, with ``head`` among them."""
        fitting, done = self.fitting(), {}
        for name in sorted(fitting, key=lambda name: name != head):
            done.setdefault(fitting[name].kind.does or name, name)
        return {name: small for name, small in fitting.items() if name in done.values()}

    def config(self, config):
        return {'heads': self.heads(*self.together()), **config}

    def heads(self, *names):
        """Configs of heads by name."""
        return {name: dict(find_smalls()[name].config) for name in names}

    @property
    def discrete(self):
        return tuple(name for small in self.together().values() for name in small.kind.discrete)

    def items(self, model):
        fields = [{}, {}, {}]
        for small in self.fitting().values():
            for own, more in zip(fields, small.kind.fields, strict=True):
                own.update(more)
        images = [numbers(*self.shape, seed=seed).to(type_of(model)) for seed in range(3)]
        return [(image, {'text': text, **own}) for image, text, own in zip(images, TEXTS, fields, strict=True)]

    def batch(self, model, items):
        """Images ``(B, 3, H, W)`` and samples."""
        from mmpretrain.structures import DataSample

        inputs = batch_of([image for image, _ in items], self.shape).to(type_of(model))
        return inputs, [DataSample(**fields) for _, fields in items]

    def outputs(self, model, items, padding=0):
        inputs, samples = self.batch(model, items)
        image = model.encode_image(inputs)
        if not items:
            return []
        tokens = longer(model.tokenize([sample.text for sample in samples]), padding)
        text = model.encode_tokens(tokens)
        seen = {'image': image, 'text': text}
        if isinstance(model, Fuser):
            fused = model.fuse(text, tokens.mask, image)
            seen |= {'fused text': fused.text, 'fused image': fused.image, 'pooled': fused.pooled}
        if isinstance(model, Writer):
            seen['written'] = model.write_on(tokens, model.start_writing(image, range(len(items))))
        lengths = tokens.mask.sum(1)
        found = [
            {key: x[row, : lengths[row]] if key.endswith(('text', 'written')) else x[row] for key, x in seen.items()}
            for row in range(len(items))
        ]
        reads = [name for head in model.heads for name in find_smalls()[head].kind.reads]
        for output, sample in zip(found, model.predict(inputs, samples), strict=True):
            output.update({name: sample.get(name) for name in reads})
        return found

    def loss(self, model, items):
        return total(model(*self.batch(model, items), mode='loss'))


def longer(tokens, padding):
    """Texts with more padding, of ids that mean something."""
    ids, mask = tokens.input_ids, tokens.mask
    if padding:
        ids = ids.masked_fill(~mask, 7)
    more = torch.arange(padding).expand(len(ids), -1) % 5 + 5
    return TokenBatch(torch.cat([ids, more], 1), torch.cat([mask, torch.zeros(more.shape, dtype=torch.bool)], 1))


class Reranking(VisionLanguage):
    """Two towers for images, and a model that matches them with texts."""

    pads = False
    discrete = ()

    def config(self, config):
        return config

    def outputs(self, model, items, padding=0):
        inputs, samples = self.batch(model, items)
        features = model(inputs)
        pairs = [(row, row) for row in range(len(items))]
        mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
        scores = model.match_pictures({'inputs': inputs * std + mean}, [sample.text for sample in samples], pairs)
        return [{'image_feat': feature, 'match': score} for feature, score in zip(features, scores, strict=True)]


def sample_with_boxes(number, size, sides):
    """mmdet's sample of one object of each side."""
    from mmdet.structures import DetDataSample

    sample = DetDataSample(
        metainfo={'img_shape': size, 'pad_shape': size, 'ori_shape': size, 'scale_factor': (1.0, 1.0)}
    )
    boxes = torch.tensor([[3.0 + number, 2, 3 + number + side, 2 + side] for side in sides])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.arange(len(sides)) % 2)
    return sample


class DenseHead(Kind):
    """Pyramids of maps to maps of class logits, box deltas and centerness.

    Args:
        channels: of the maps.
        strides: pixels from one position to the next, one number a level; anchors are four times as wide.
    """

    size = (128, 160)

    def __init__(self, channels, strides):
        self.channels, self.strides = channels, strides

    def items(self, head):
        sizes = [tuple(side // stride for side in self.size) for stride in self.strides]
        return [
            [numbers(self.channels, *size, seed=10 * seed).to(type_of(head)) for size in sizes] for seed in range(3)
        ]

    def _pyramid(self, head, items):
        levels = zip(*(items or self.items(head)[:1]), strict=True)
        return tuple(batch_of(maps, ())[: len(items)].to(type_of(head)) for maps in levels)

    def outputs(self, head, items):
        kinds = head(self._pyramid(head, items))
        return [
            {f'map {n} of level {level}': maps[row] for n, kind in enumerate(kinds) for level, maps in enumerate(kind)}
            for row in range(len(items))
        ]

    def loss(self, head, items):
        sides = [4 * stride for stride in self.strides]
        samples = [sample_with_boxes(number, self.size, sides) for number in range(len(items))]
        return total(head.loss(self._pyramid(head, items), samples))


class Detector(Kind):
    """Images to boxes of the classes that were set.

    Args:
        sides: of objects, so that each level of the pyramid has one.
    """

    size = (48, 64)
    discrete = ('labels', 'boxes', 'scores')

    def __init__(self, sides):
        self.sides = sides

    def items(self, model):
        model.set_classes(['red', 'dogs', 'a two'], templates=['a {}', 'no {}'])
        return [((numbers(3, *self.size, seed=seed) * 60 + 120).clamp(0, 255).byte(), seed) for seed in range(3)]

    def _batch(self, model, items, training):
        data = {
            'inputs': [image for image, _ in items],
            'data_samples': [sample_with_boxes(number, self.size, self.sides) for _, number in items],
        }
        return model.data_preprocessor(data, training)

    def outputs(self, model, items):
        if not items:
            return model.predict(torch.zeros(0, 3, *self.size, dtype=type_of(model)), [])
        data = self._batch(model, items, False)
        maps = [level for kind in model(**data, mode='tensor') for level in kind]
        found = []
        for row, sample in enumerate(model(**data, mode='predict')):
            boxes = sample.pred_instances
            assert len(boxes)
            found.append({f'map {n}': level[row] for n, level in enumerate(maps)})
            found[-1] |= {'boxes': boxes.bboxes, 'scores': boxes.scores, 'labels': boxes.labels}
        return found

    def loss(self, model, items):
        return total(model(**self._batch(model, items, True), mode='loss'))
