"""A world in which detection is known by hand: rectangles of one colour, whose names are the classes."""

import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import nn

import florence_mm  # noqa: F401  (first, it patches mmdet)
from florence_mm.models.algorithms import UniCL
from florence_mm.models.detectors import ZeroShotDetector
from florence_mm.models.preprocessor import ImageTextDataPreprocessor

# features of class names, L2-normalised
WORDS = {
    'red': (1.0, 0.0, 0.0),
    'green': (0.0, 1.0, 0.0),
    'blue': (0.0, 0.0, 1.0),
    'grey': (3**-0.5, 3**-0.5, 3**-0.5),
}
SCORES = {'red': 0.81, 'green': 0.64, 'blue': 0.49, 'grey': 0.36}
TEMPERATURE = 5.0
PLAIN = {'type': 'mmdet.DetDataPreprocessor', 'mean': [0.0] * 3, 'std': [1.0] * 3, 'pad_size_divisor': 8}


class Pixels(nn.Module):
    """A backbone whose maps are the picture itself and its means over cells of 4 x 4 pixels."""

    num_features = 3

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.sizes = []

    def forward(self, x):
        self.sizes.append(tuple(x.shape))
        return x, nn.functional.avg_pool2d(self.scale * x, 4, ceil_mode=True, count_include_pad=False)


class Words(nn.Module):
    """A text tower that knows the words; a text is the index of its last word."""

    embed_dims = 3

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding.from_pretrained(torch.tensor(list(WORDS.values())), freeze=False)

    def forward(self, ids):
        return self.table(ids)


def tokenize(texts):
    return torch.tensor([list(WORDS).index(text.split()[-1]) for text in texts])


class RectangleFinder(BaseModel):
    """Proposes the bounds of each colour of a picture, in the order of WORDS, with the scores of SCORES."""

    def __init__(self, data_preprocessor=None, init_cfg=None):
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = Pixels()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return self.loss(inputs, data_samples) if mode == 'loss' else self.backbone(inputs)

    def predict(self, inputs, data_samples, rescale=True):
        assert not rescale
        maps = self.backbone(inputs)[0]
        for picture, sample in zip(maps, data_samples, strict=True):
            boxes, scores = [], []
            for name, feature in WORDS.items():
                colour = (torch.tensor(feature) > 0) * 200.0
                if name == 'grey':
                    colour = colour / 2
                found = ((picture - colour[:, None, None]).abs() < 30).all(0).nonzero()
                if len(found):
                    (y1, x1), (y2, x2) = found.min(0).values.tolist(), (found.max(0).values + 1).tolist()
                    boxes.append([x1, y1, x2, y2])
                    scores.append(SCORES[name])
            boxes = torch.tensor(boxes, dtype=torch.float).reshape(-1, 4)
            sample.pred_instances = InstanceData(
                bboxes=boxes, scores=torch.tensor(scores), labels=torch.zeros(len(boxes), dtype=torch.long)
            )
        return data_samples

    def loss(self, inputs, data_samples):
        self.seen = data_samples
        return {'loss_bbox': (self.backbone(inputs)[1].mean() + self.bias) ** 2}


def classifier(image_encoder):
    """UniCL whose image features are mean colours and whose text features are WORDS."""
    model = UniCL(
        image_encoder,
        Words(),
        tokenize,
        embed_dims=3,
        templates='none',
        data_preprocessor=ImageTextDataPreprocessor(mean=(0.0,) * 3, std=(1.0,) * 3),
    )
    model.image_projection.data = torch.eye(3)
    model.text_projection.data = torch.eye(3)
    model.logit_scale.data = torch.tensor(TEMPERATURE).log()
    return model


def picture(size, **rectangles):
    """``(3, H, W)`` uint8, black, with rectangles given as ``name=(x1, y1, x2, y2)``."""
    image = torch.zeros(3, *size, dtype=torch.uint8)
    for name, (x1, y1, x2, y2) in rectangles.items():
        colour = (torch.tensor(WORDS[name]) > 0) * (100 if name == 'grey' else 200)
        image[:, y1:y2, x1:x2] = colour[:, None, None].byte()
    return image


def zero_shot_detector(shared=False, **kwargs):
    """Both parts with one backbone or two; crops are stretched, so that they have no surroundings."""
    finder = RectangleFinder()
    settings = {'crop_size': 8, 'context': (1.0,), 'square_crop': False, 'data_preprocessor': PLAIN} | kwargs
    encoder = finder.backbone if shared else Pixels()
    return ZeroShotDetector(settings.pop('detector', finder), classifier(encoder), **settings).eval()


def samples(*images, **meta):
    """A sample for each image ``(3, H, W)``."""
    from mmdet.structures import DetDataSample

    shapes = [{'img_shape': tuple(image.shape[1:]), 'img_id': i} for i, image in enumerate(images)]
    return [DetDataSample(metainfo=shape | meta) for shape in shapes]
