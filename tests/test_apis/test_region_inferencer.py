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
