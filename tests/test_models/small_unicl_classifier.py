"""Small model of classes that begins from two towers, and its head."""

from instances import Small
from kinds import Kind, batch_of, numbers, type_of
from small_unicl import UNICL
from whole_kinds import total

CLASSES = ['red', 'dogs', 'a two', 'no one']


class Classifier(Kind):
    """Images to classes."""

    discrete = ('pred_label',)

    def items(self, model):
        return [(numbers(3, 32, 32, seed=seed).to(type_of(model)), seed) for seed in range(3)]

    def _batch(self, model, items):
        from mmpretrain.structures import DataSample

        inputs = batch_of([image for image, _ in items], (3, 32, 32)).to(type_of(model))
        return inputs, [DataSample().set_gt_label(label) for _, label in items]

    def outputs(self, model, items):
        samples = model.predict(*self._batch(model, items))
        return [{'pred_score': sample.pred_score, 'pred_label': sample.pred_label} for sample in samples]

    def loss(self, model, items):
        return total(model(*self._batch(model, items), mode='loss'))


class ClassHead(Kind):
    """Image features to cosines with classes."""

    def items(self, head):
        return [numbers(6, seed=seed).to(type_of(head)) for seed in range(3)]

    def outputs(self, head, items):
        return [{'cosines': row} for row in head(batch_of(items, (6,)).to(type_of(head)))]


SMALL = {
    'UniCLClassifier': Small(
        {'type': 'UniCLClassifier', 'towers': UNICL, 'classes': CLASSES, 'templates': 'none'},
        Classifier(),
        ('WholeBatchLoss', 'PoolsImages', 'ScoresLabels'),
        {'towers.text_encoder': 'frozen once the head has its features', 'towers.text_projection': 'the same'},
    ),
    'TextInitializedHead': Small({'type': 'TextInitializedHead', 'num_classes': 4, 'embed_dims': 6}, ClassHead()),
}
