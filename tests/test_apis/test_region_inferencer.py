"""Region files that detectors and annotated boxes give."""

import copy
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from florence_mm.apis.region_inferencer import RegionInferencer
from florence_mm.errors import UsageError
from florence_mm.formats.regions import RegionFiles
from florence_mm.ops.detected_regions import FoundRegions

ARCH = {'embed_dims': 8, 'depths': [1, 1], 'num_heads': [1, 2], 'patch_size': 4, 'window_size': 4}
TOWERS = {
    'type': 'florence_mm.UniCL',
    'image_encoder': {'type': 'florence_mm.CoSwin', 'arch': ARCH, 'img_size': 32, 'out_indices': (1,)},
    'text_encoder': {
        'type': 'florence_mm.CLIPTextTower',
        'arch': {'embed_dims': 16, 'num_layers': 1, 'num_heads': 2},
        'vocab_size': 600,
    },
    'tokenizer': {'type': 'florence_mm.CLIPTokenizer', 'vocab_size': 600},
    'embed_dims': 8,
}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Three pictures in a folder and a folder inside, and annotations of boxes in two of them."""
    folder = tmp_path_factory.mktemp('pictures')
    (folder / 'more').mkdir()
    names = ['a.png', 'b.png', 'more/c.png']
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    images = [{'id': n, 'file_name': name, 'width': 32, 'height': 32} for n, name in enumerate(names, 1)]
    boxes = [(1, 2, [0, 0, 16, 16]), (1, 1, [8, 8, 40, 16]), (3, 1, [0, 0, 32, 32])]
    annotations = [
        {'id': n, 'image_id': image, 'category_id': label, 'bbox': box, 'area': 1, 'iscrowd': 0}
        for n, (image, label, box) in enumerate(boxes, 1)
    ]
    categories = [{'id': 1, 'name': 'one'}, {'id': 2, 'name': 'two'}]
    path = folder.parent / 'boxes.json'
    path.write_text(json.dumps({'images': images, 'annotations': annotations, 'categories': categories}))
    return folder, path


@pytest.fixture(scope='module')
def inferencer():
    pipeline = [{'type': 'florence_mm.LoadImage'}, {'type': 'florence_mm.PackImageText'}]
    dataset = {'type': 'florence_mm.ImageTextManifest', 'ann_file': 'none.jsonl', 'pipeline': pipeline}
    torch.manual_seed(0)
    return RegionInferencer(Config({'model': TOWERS, 'test_dataloader': {'dataset': dataset}}), batch_size=2)


def test_annotated_boxes_are_pooled_from_the_map(inferencer, files, tmp_path):
    folder, boxes = files
    results = inferencer.write(str(folder), tmp_path / 'out', boxes)
    assert [result['regions'] for result in results] == [2, 1, 1]
    read = RegionFiles(tmp_path / 'out')
    assert sorted(read) == ['a.png', 'b.png', 'more/c.png'] and read.classes == ['one', 'two']
    first = read.read('a.png')
    assert first.boxes.tolist() == [[0, 0, 16, 16], [8, 8, 32, 24]] and first.size == (32, 32)  # cut at the edge
    assert first.probabilities.tolist() == [[0, 0, 1], [0, 1, 0]]
    # a picture without boxes is one region, of background; that of the whole picture is the mean of the map
    assert read.read('b.png').probabilities.tolist() == [[1, 0, 0]]
    image = torch.from_numpy(np.asarray(Image.open(folder / 'b.png')).copy()).permute(2, 0, 1)
    inputs = inferencer.model.data_preprocessor({'inputs': [image]})['inputs']
    with torch.no_grad():
        (maps,) = inferencer.model.image_encoder(inputs)
    assert maps.shape[-1] == 4 and read.feature_dims == maps.shape[1]
    np.testing.assert_allclose(read.read('b.png').features[0], maps[0].mean((1, 2)), atol=0.2)


def test_a_model_that_finds_no_boxes_needs_them(inferencer, files, tmp_path):
    folder, boxes = files
    with pytest.raises(UsageError, match='a detector, or give boxes'):
        inferencer.write(str(folder), tmp_path / 'out')
    with pytest.raises(UsageError, match='least 5 and most 2; give a score from 0 to 1'):
        inferencer.write(str(folder), tmp_path / 'out', boxes, least=5, most=2)
    assert not (tmp_path / 'out/index.json').exists()


class Finder(torch.nn.Module):
    """A detector that finds the same boxes in each picture, in pixels of the picture."""

    bbox_head = None

    def __init__(self, preprocessor):
        super().__init__()
        self.data_preprocessor = preprocessor

    def extract_feat(self, inputs):
        return [inputs[:, :2, ::4, ::4], inputs[:, :2, ::8, ::8]]

    def test_step(self, data):
        from mmengine.structures import InstanceData

        for sample in data['data_samples']:
            boxes = torch.tensor([[0.0, 0, 16, 16], [0, 0, 16, 15], [8, 8, 24, 32]])
            found = InstanceData(bboxes=boxes, scores=torch.tensor([0.8, 0.4, 0.1]), labels=torch.tensor([1, 0, 0]))
            sample.set_field(found, 'pred_instances')
        return data['data_samples']


def test_a_detector_finds_the_regions(inferencer, files, tmp_path, monkeypatch):
    folder, _ = files
    own = copy.copy(inferencer)
    own.model = Finder(inferencer.model.data_preprocessor)
    monkeypatch.setattr(type(own.pipeline), 'class_names', lambda self, meta: ['one', 'two'])
    own.write(str(folder), tmp_path / 'few', least=1)
    own.write(str(folder), tmp_path / 'more')
    few, more = (RegionFiles(tmp_path / name).read('b.png') for name in ('few', 'more'))
    assert few.boxes.tolist() == [[0, 0, 16, 16]]  # above 0.2
    np.testing.assert_allclose(few.probabilities, [[0.2, 0.8 / 3, 1.6 / 3]], rtol=1e-5)
    assert len(more.boxes) == 2 and more.features.shape == (2, 2)  # ten regions, if there were as many


def boxes_file(folder, size, boxes):
    """Annotations of pictures of one size, ``{name: [box, ...]}`` with left, top, width, height."""
    images = [{'id': n, 'file_name': name, 'width': size[0], 'height': size[1]} for n, name in enumerate(boxes)]
    every = [(image['id'], box) for image in images for box in boxes[image['file_name']]]
    annotations = [
        {'id': n, 'image_id': image, 'category_id': 1, 'bbox': box, 'area': 1, 'iscrowd': 0}
        for n, (image, box) in enumerate(every, 1)
    ]
    path = folder / 'own_boxes.json'
    path.write_text(
        json.dumps({'images': images, 'annotations': annotations, 'categories': [{'id': 1, 'name': 'one'}]})
    )
    return path


def test_features_of_crops_do_not_tell_where_a_box_is(inferencer, tmp_path):
    patch = np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    places = {'middle.png': (10, 12), 'corner.png': (0, 0), 'edge.png': (28, 24)}
    (tmp_path / 'pictures').mkdir()
    for name, (left, top) in places.items():
        pixels = np.full((32, 40, 3), 90, np.uint8)
        pixels[top : top + 8, left : left + 12] = patch
        Image.fromarray(pixels).save(tmp_path / 'pictures' / name)
    boxes = {name: [[*place, 12, 8]] for name, place in places.items()}
    path = boxes_file(tmp_path, (40, 32), boxes)
    inferencer.write(tmp_path / 'pictures', tmp_path / 'crops', path, features='crops', crop_size=32)
    inferencer.write(tmp_path / 'pictures', tmp_path / 'map', path)
    crops, maps = (RegionFiles(tmp_path / name) for name in ('crops', 'map'))
    first = crops.read('middle.png').features
    for name in ('corner.png', 'edge.png'):
        np.testing.assert_allclose(crops.read(name).features, first, atol=1e-6, err_msg=name)
    assert np.abs(maps.read('corner.png').features - maps.read('middle.png').features).max() > 0.1


def test_a_feature_of_a_crop_is_that_of_the_tower_on_it(inferencer, files, tmp_path):
    folder, boxes = files
    one = copy.copy(inferencer)
    one.batch_size = 1
    inferencer.write(folder, tmp_path / 'out', boxes, features='crops', crop_size=32)
    one.write(folder, tmp_path / 'one', boxes, features='crops', crop_size=32)
    read, alone = RegionFiles(tmp_path / 'out'), RegionFiles(tmp_path / 'one')
    image = torch.from_numpy(np.asarray(Image.open(folder / 'a.png')).copy()).permute(2, 0, 1).float()
    small, wide = (
        torch.nn.functional.interpolate(part[None], (32, 32), mode='bilinear', antialias=True)[0]
        for part in (image[:, :16, :16], image[:, 8:24, 8:32])
    )
    inputs = inferencer.model.data_preprocessor({'inputs': [small, wide]})['inputs']
    with torch.no_grad():
        (maps,) = inferencer.model.image_encoder(inputs)
    np.testing.assert_allclose(read.read('a.png').features, maps.mean((2, 3)), atol=1e-5)
    for name in read:  # pictures with two boxes, with none and with one
        np.testing.assert_allclose(alone.read(name).features, read.read(name).features, atol=1e-5)
        assert alone.read(name).boxes.tolist() == read.read(name).boxes.tolist()


def test_crops_of_detected_boxes_are_averaged_without_padding(inferencer, files, tmp_path, monkeypatch):
    """A detector that reads BGR, whose preprocessor pads; its map of 4 pixels a cell suits crops of 12."""
    folder, _ = files
    own = copy.copy(inferencer)

    class Preprocessor(torch.nn.Module):
        def forward(self, data, training):
            crops = [torch.nn.functional.pad(crop, (0, 4, 0, 4), value=1e4) for crop in data['inputs']]
            return {'inputs': torch.stack(crops), 'data_samples': data['data_samples']}

    own.model = Finder(Preprocessor())
    own.model.extract_feat = lambda inputs: [torch.nn.functional.avg_pool2d(inputs, side) for side in (4, 8)]
    own.pipeline = copy.copy(inferencer.pipeline)
    own.pipeline.bgr = True
    box = torch.tensor([[-3.0, 20.0, 12.0, 40.0], [32.0, 32.0, 40.0, 40.0]])  # over the edge, and outside
    monkeypatch.setattr(own, '_detect', lambda batch, *_: [FoundRegions(box, torch.ones(2, 3) / 3) for _ in batch])
    monkeypatch.setattr(type(own.pipeline), 'class_names', lambda self, meta: ['one', 'two'])
    own.write(folder, tmp_path / 'out', features='crops', crop_size=12)
    pixels = np.asarray(Image.open(folder / 'b.png')).astype(np.float32)
    features = RegionFiles(tmp_path / 'out').read('b.png').features
    np.testing.assert_allclose(features[0], pixels[20:, :12].mean((0, 1))[::-1], rtol=1e-4)
    np.testing.assert_allclose(features[1], pixels[-1, -1][::-1], rtol=1e-4)


def test_features_and_sizes_of_crops_that_do_not_exist_are_refused(inferencer, files, tmp_path):
    folder, boxes = files
    for sentence, wrong in (
        ("features is 'crop'; give 'map' or 'crops'", {'features': 'crop'}),
        ("crop_size is 8, and features of maps have none; give features='crops'", {'crop_size': 8}),
        ('the config has no image_size, the side of its images; give crop_size', {'features': 'crops'}),
        ('crop_size is 0; give the side', {'features': 'crops', 'crop_size': 0}),
        ('crop_size is 8.5; give the side', {'features': 'crops', 'crop_size': 8.5}),
    ):
        with pytest.raises(UsageError, match=sentence):
            inferencer.write(folder, tmp_path / 'out', boxes, **wrong)
    assert not (tmp_path / 'out').exists()
    own = copy.copy(inferencer)
    own.cfg = Config({**inferencer.cfg, 'image_size': 32})
    own.write(folder, tmp_path / 'own', boxes, features='crops')
    inferencer.write(folder, tmp_path / 'given', boxes, features='crops', crop_size=32)
    own, given = (RegionFiles(tmp_path / name).read('a.png').features for name in ('own', 'given'))
    np.testing.assert_array_equal(own, given)
