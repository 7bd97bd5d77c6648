"""Classes and features of images whose scores are known by hand, and inputs of every kind."""

import json
import math
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from PIL import Image
from torch import nn

from florence_mm.apis import ImageInferencer
from florence_mm.apis.base import InferencePipeline
from florence_mm.apis.inputs import files_of, from_memory
from florence_mm.errors import DataError, UsageError

ROOT = Path(__file__).parents[2]
world = runpy.run_path(str(ROOT / 'tests/test_models/coloured_boxes.py'))
E = math.exp(world['TEMPERATURE'])
RED, GREEN = (200, 0, 0), (0, 200, 0)


def two_towers():
    return world['classifier'](world['Pixels']())


def config(model=two_towers, **dataset):
    pipeline = [{'type': 'florence_mm.LoadImage'}, {'type': 'florence_mm.PackImageText'}]
    dataset = {'type': 'florence_mm.ImageFolderText', 'data_root': 'nowhere', 'pipeline': pipeline, **dataset}
    return Config({'model': {'type': model}, 'test_dataloader': {'dataset': dataset}})


@pytest.fixture
def checkpoint(tmp_path):
    file = tmp_path / 'weights/model.pth'
    file.parent.mkdir()
    torch.save({'state_dict': two_towers().state_dict(), 'meta': {}}, file)
    return file


def picture(colour, shape=(12, 16)):
    return np.full((*shape, 3), colour, np.uint8)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])
    return path


def test_free_text_by_hand(checkpoint, tmp_path):
    file = write(tmp_path / 'in/red.png', picture(RED))
    inferencer = ImageInferencer(config(), checkpoint, 'cpu')
    (result,) = inferencer(file, 'blue, red', out_dir=tmp_path / 'out')
    # cosines 1 and 0, times the temperature
    expected = {'labels': ['red', 'blue'], 'scores': [round(E / (E + 1), 4), round(1 / (E + 1), 4)]}
    assert result == {'file': str(file), 'width': 16, 'height': 12, **expected, 'picture': 'red.png'}
    assert json.loads((tmp_path / 'out/classes.json').read_text()) == {'classes': ['blue', 'red'], 'images': [result]}
    drawn = cv2.imread(str(tmp_path / 'out/red.png'))[..., ::-1]
    assert drawn.shape[1] == 480 and tuple(drawn[100, 240]) == RED
    # without a folder nothing is drawn
    (again,) = inferencer(file, 'blue, red', out=tmp_path / 'plain/c.json')
    assert again == {key: value for key, value in result.items() if key != 'picture'}
    assert [path.name for path in (tmp_path / 'plain').iterdir()] == ['c.json']
    assert json.loads((tmp_path / 'plain/c.json').read_text())['images'] == [again]
    # equal scores are in the order of the classes, and `top` cuts
    assert inferencer(file, ['grey', 'blue', 'green'], top=2)[0]['labels'] == ['grey', 'blue']
    assert inferencer(file, ['green', 'blue'], top=2)[0]['labels'] == ['green', 'blue']


def test_features_are_cosines_and_go_to_a_file(checkpoint, tmp_path):
    inferencer = ImageInferencer(config(), checkpoint, 'cpu', batch_size=3)
    images = [picture(RED), np.zeros((4, 4), np.uint8), picture((150, 150, 0)), picture(GREEN)]
    results = inferencer(images, features=tmp_path / 'f.npy')
    assert [result.get('row') for result in results] == [0, None, 1, 2] and 'error' in results[1]
    rows = np.load(tmp_path / 'f.npy')
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[1, 0, 0], [0.5**0.5, 0.5**0.5, 0], [0, 1, 0]], atol=1e-6)
    np.testing.assert_array_equal(results[2]['features'], rows[1])
    assert 'labels' not in results[0]
    with pytest.raises(UsageError, match=r'name a file that ends in .npy'):
        inferencer(images, features=tmp_path / 'f.json')
    with pytest.raises(UsageError, match='needs class names'):
        inferencer(images)


def test_a_picture_alone_is_what_it_is_in_a_batch(checkpoint):
    images = [picture(np.random.default_rng(i).integers(0, 256, 3)) for i in range(5)]
    alone, four = (
        ImageInferencer(config(), checkpoint, 'cpu', batch_size=size)(images, 'red, grey, blue', features=True)
        for size in (1, 4)
    )
    for one, other in zip(alone, four, strict=True):
        np.testing.assert_allclose(one.pop('features'), other.pop('features'), atol=1e-6)
        assert one == other


def test_classes_of_one_call_are_not_those_of_the_next(checkpoint):
    inferencer = ImageInferencer(config(lambda: with_classes(['green', 'red'])), checkpoint, 'cpu')
    assert inferencer(picture(RED), 'blue')[0]['labels'] == ['blue']
    assert inferencer(picture(RED))[0]['labels'] == ['red', 'green']


def with_classes(names):
    model = two_towers()
    model.set_classes(names)
    return model


def test_inputs_of_every_kind(checkpoint, tmp_path):
    files = [write(tmp_path / f'in/{name}.png', picture(colour)) for name, colour in (('a', RED), ('b', GREEN))]
    inferencer = ImageInferencer(config(), checkpoint, 'cpu', batch_size=2)

    def best(inputs):
        return [result['labels'][0] for result in inferencer(inputs, 'red, green, blue')]

    clear = Image.fromarray(np.dstack([picture(RED), np.full((12, 16), 255, np.uint8)]))
    assert best(tmp_path / 'in') == best(str(tmp_path / 'in/*.png')) == ['red', 'green']
    assert best(str(tmp_path / '**/b.png')) == best(f'file://{files[1]}') == ['green']
    assert best([Image.open(files[1]), clear, picture(RED), str(files[0])]) == ['green', 'red', 'red', 'red']
    with pytest.raises(UsageError, match=r'the pattern .*\*\.jpg has no images'):
        best(str(tmp_path / 'in/*.jpg'))
    # a file with such a name is no pattern
    assert best(write(tmp_path / 'x[1].png', picture(GREEN))) == ['green']


def test_a_generator_is_taken_a_batch_at_a_time(checkpoint, tmp_path):
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield picture(RED) if len(taken) != 2 else 7

    inferencer = ImageInferencer(config(), checkpoint, 'cpu', batch_size=2)
    results = inferencer.stream(endless(), 'red, blue', out_dir=tmp_path / 'out')
    first = [next(results) for _ in range(3)]
    assert len(taken) == 4
    assert [('error' in result) for result in first] == [False, True, False] and '7 is among' in first[1]['error']
    lines = (tmp_path / 'out/classes.json.part').read_text().splitlines()
    assert [json.loads(line) for line in lines] == first
    results.close()
    assert not (tmp_path / 'out/classes.json').exists()
    with pytest.raises(DataError, match='7 is among the images'):
        inferencer(iter([picture(RED), 7]), 'red', skip_bad=False)
    with pytest.raises(UsageError, match='no images were given'):
        inferencer(iter([]), 'red')


class Fixed(BaseModel):
    """A classifier of red, green and blue whose features are the mean colours."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def extract_feat(self, inputs):
        return (inputs.float() * self.weight,)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        scores = torch.stack(list(inputs)).float().mean((2, 3)) / 200
        return [sample.set_pred_score(score) for sample, score in zip(data_samples, scores, strict=True)]


def test_fixed_classes():
    cfg = config(Fixed, metainfo={'classes': ('red', 'green', 'blue')})
    cfg.test_dataloader.dataset.pipeline[1] = {'type': 'mmpretrain.PackInputs'}
    inferencer = ImageInferencer(cfg, None, 'cpu')
    (result,) = inferencer(picture((50, 100, 0)))
    assert (result['labels'], result['scores']) == (['green', 'red', 'blue'], [0.5, 0.25, 0.0])
    assert inferencer(picture((50, 100, 0)), 'blue, red')[0]['labels'] == ['red', 'blue']
    with pytest.raises(UsageError, match="'gren' is none of them; did you mean 'green'"):
        inferencer(picture(RED), 'gren')


def test_what_cannot_be_used(checkpoint):
    class Nothing(BaseModel):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            return data_samples

    with pytest.raises(UsageError, match='is of a Nothing; give one of an image classifier'):
        ImageInferencer(config(Nothing), None, 'cpu')(picture(RED))
    for top in (0, 1.5, True):
        with pytest.raises(UsageError, match='top is'):
            ImageInferencer(config(), checkpoint, 'cpu')(picture(RED), 'red', top=top)


def test_pictures_of_pillow_without_a_white_are_refused():
    grey = np.full((4, 4), 40000, np.int32)
    for image in (Image.fromarray(grey), Image.fromarray((grey / 65535).astype(np.float32))):
        with pytest.raises(DataError, match=f'has mode {image.mode}, whose white is unknown'):
            from_memory(image)
    assert from_memory(Image.fromarray(grey // 256))[0, 0].tolist() == [156] * 3
    assert from_memory(Image.fromarray(grey.astype(np.uint16)))[0, 0].tolist() == [156] * 3


def test_a_circle_of_links_gives_each_picture_once(tmp_path):
    file = write(tmp_path / 'in/red.png', picture(RED))
    (tmp_path / 'in/again').symlink_to(tmp_path / 'in')
    (tmp_path / 'in/same.png').symlink_to(file)  # a file by two names is meant
    assert files_of(tmp_path / 'in/**/*.png', ('.png',)) == [file, tmp_path / 'in/same.png']


def test_precision_is_that_of_the_encoder(checkpoint, monkeypatch):
    monkeypatch.setattr('florence_mm.models.precision.bfloat16_units', lambda device: 'AMX')
    exact = ImageInferencer(config(), checkpoint, 'cpu')
    seen = []
    for precision in ('bf16', 'auto'):
        inferencer = ImageInferencer(config(), checkpoint, 'cpu', 1, precision)
        inferencer.model.image_encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
        (result,) = inferencer(picture((201, 3, 90)), 'blue, red', features=True)
        (other,) = exact(picture((201, 3, 90)), 'blue, red', features=True)
        assert set(seen) == {torch.bfloat16} and result['features'].dtype == np.float32
        assert np.abs(result['features'] - other['features']).max() < 0.01
        assert result['labels'] == other['labels']
        assert result['scores'] == pytest.approx(other['scores'], abs=0.01)
    monkeypatch.setattr('florence_mm.models.precision.bfloat16_units', lambda device: None)
    with pytest.raises(UsageError, match="precision 'bf16' would be slower"):
        ImageInferencer(config(), checkpoint, 'cpu', precision='bf16')


def test_images_are_not_read_at_the_scale_of_a_crop():
    steps = [{'type': 'florence_mm.LoadImage', 'scaled': True}, {'type': 'florence_mm.RandomResizedCrop', 'scale': 8}]
    with pytest.raises(UsageError, match=r'LoadImage\(scaled=True\) cannot be used here: inference is done on whole'):
        InferencePipeline({'type': 'florence_mm.ImageTextManifest', 'pipeline': steps})
