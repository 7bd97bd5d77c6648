import importlib.util
import json
import logging
import math
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from florence_mm.apis import DetectionInferencer
from florence_mm.apis.classes import parse_class_names
from florence_mm.config.pick import find_step
from florence_mm.errors import DataError, UsageError
from florence_mm.models.detectors import ZeroShotDetector
from florence_mm.registry import MODELS
from florence_mm.visualization.detections import class_colour

ROOT = Path(__file__).parents[2]
world = runpy.run_path(str(ROOT / 'tests/test_models/coloured_boxes.py'))
E = math.exp(world['TEMPERATURE'])
STREET = {'red': (8, 16, 40, 48), 'blue': (64, 20, 100, 80)}


PREPROCESSOR = {'type': 'mmdet.DetDataPreprocessor', 'mean': [0.0] * 3, 'std': [1.0] * 3, 'bgr_to_rgb': True}


class ClosedSetFinder(world['RectangleFinder']):
    """Labels its rectangles itself."""

    def __init__(self):
        super().__init__(MODELS.build(PREPROCESSOR))

    def predict(self, inputs, data_samples, rescale=True):
        for sample in super().predict(inputs, data_samples, rescale=False):
            found = sample.pred_instances
            found.labels = torch.tensor(
                [sorted(world['SCORES'].values())[::-1].index(round(s, 2)) for s in found.scores.tolist()]
            )
            found.bboxes /= found.bboxes.new_tensor(sample.scale_factor * 2)
        return data_samples


def zero_shot(**kwargs):
    finder = world['RectangleFinder'](MODELS.build(PREPROCESSOR))
    model = ZeroShotDetector(finder, world['classifier'](world['Pixels']()), crop_size=8, context=(1.0,), **kwargs)
    model.square_crop = False
    return model


def config(model, loader='mmdet.LoadImageFromFile', resize=1.0, **dataset):
    """Reads BGR, as mmdet's pipelines do, and resizes."""
    size = {'type': 'mmdet.Resize', 'scale_factor': resize, 'keep_ratio': True, 'interpolation': 'nearest'}
    annotations = {'type': 'mmdet.LoadAnnotations', 'with_bbox': True}
    pipeline = [{'type': loader}, annotations, size, {'type': 'mmdet.PackDetInputs'}]
    dataset = {'type': 'mmdet.CocoDataset', 'ann_file': 'nowhere.json', 'pipeline': pipeline, **dataset}
    return Config({'model': {'type': model}, 'test_dataloader': {'dataset': dataset}})


def inferencer(model=zero_shot, **kwargs):
    """Weights come from a checkpoint only where a test gives one."""
    settings = {key: kwargs.pop(key) for key in ('batch_size', 'checkpoint') if key in kwargs}
    made = DetectionInferencer(config(model, **kwargs), settings.pop('checkpoint', None), 'cpu', **settings)
    if hasattr(made.model, 'classifier'):
        made.model.classifier.load_state_dict(zero_shot().classifier.state_dict())
    return made


def street(**rectangles):
    return world['picture']((96, 128), **(rectangles or STREET)).permute(1, 2, 0).numpy()


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])
    return path


@pytest.mark.parametrize('resize', [1.0, 2.0, 0.5])
def test_text_to_boxes_by_hand(tmp_path, resize):
    path = write(tmp_path / 'street.png', street())
    (result,) = inferencer(resize=resize)(path, 'red, blue')
    sure = E / (E + 1)
    assert result == {
        'file': str(path),
        'width': 128,
        'height': 96,
        'boxes': [list(map(float, STREET[name])) for name in ('red', 'blue')],
        'labels': ['red', 'blue'],
        'scores': [round(math.sqrt(score * sure), 4) for score in (0.81, 0.49)],
    }
    json.dumps(result)


def test_arrays_are_rgb_and_classes_can_change():
    detect = inferencer()
    (result,) = detect(street(), ['blue', 'red'])
    assert result['labels'] == ['red', 'blue'] and result['file'] is None
    (result,) = detect(street(), 'green,blue', score_thr=0.69)
    assert result['labels'] == ['blue']
    with pytest.raises(UsageError, match='needs class names'):
        inferencer()(street())
    (result,) = inferencer(lambda: zero_shot(classes=['blue', 'red']))(street())
    assert result['labels'] == ['red', 'blue']


def test_our_loader_gives_rgb():
    def model():
        made = zero_shot()
        made.data_preprocessor._channel_conversion = False
        return made

    (result,) = inferencer(model, loader='florence_mm.LoadImage')(street(), 'red, blue')
    assert result['labels'] == ['red', 'blue']


def test_batches_give_what_single_pictures_give():
    images = [street(), street(green=(3, 3, 50, 90)), np.zeros((96, 128, 3), np.uint8), street(blue=(0, 0, 128, 96))]
    one, three = (inferencer(batch_size=size)(images, 'red, green, blue') for size in (1, 3))
    assert one == three
    assert [result['labels'] for result in one] == [['red', 'blue'], ['green'], [], ['blue']]


def test_a_folder_with_pictures_and_one_json(tmp_path):
    write(tmp_path / 'in/b.png', street())
    write(tmp_path / 'in/a/b.png', street(green=(16, 16, 80, 80)))
    (tmp_path / 'in/notes.txt').write_text('no picture')
    results = inferencer()(tmp_path / 'in', 'red, green, blue', out_dir=tmp_path / 'out')
    assert [result['picture'] for result in results] == ['b.png', 'b_2.png']
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['b.png', 'b_2.png', 'detections.json']
    written = json.loads((tmp_path / 'out/detections.json').read_text())
    assert written == {'classes': ['red', 'green', 'blue'], 'score_thr': 0.3, 'images': results}
    drawn = cv2.imread(str(tmp_path / 'out/b.png'))[..., ::-1]  # a/b.png comes first
    assert drawn.shape == (384, 512, 3)  # four times as large
    assert tuple(drawn[200, 4 * 16]) == class_colour('green', ['red', 'green', 'blue'])
    assert tuple(drawn[200, 4 * 16 + 20]) == (0, 200, 0)


def test_originals_are_not_drawn_over(tmp_path):
    picture = write(tmp_path / 'b.png', street())
    before = picture.read_bytes()
    with pytest.raises(UsageError, match='b.png lies in the output folder.*give another'):
        inferencer()(picture, 'red', out_dir=tmp_path)
    assert picture.read_bytes() == before


def test_bad_pictures_have_their_sentence(tmp_path):
    good = write(tmp_path / 'good.png', street())
    cut = tmp_path / 'cut.png'
    cut.write_bytes(good.read_bytes()[:100])
    missing = tmp_path / 'missing.png'
    detect = inferencer(batch_size=2)
    with pytest.raises(DataError, match='cut.png is cut off before its end'):
        detect([good, cut, good], 'red', skip_bad=False)
    results = detect([good, cut, missing, good], 'red', out_dir=tmp_path / 'out')
    assert ['error' in result for result in results] == [False, True, True, False]
    assert 'missing.png cannot be read (No such file or directory)' in results[2]['error']
    assert results[0]['boxes'] == results[3]['boxes'] and results[1]['file'] == str(cut)
    assert json.loads((tmp_path / 'out/detections.json').read_text())['images'] == results
    with pytest.raises(DataError, match=r'shape \(4, 4\) and type float64; convert it to \(H, W, 3\) uint8 RGB'):
        detect(np.zeros((4, 4)), 'red', skip_bad=False)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UsageError, match='empty has no images'):
        detect(tmp_path / 'empty', 'red')
    with pytest.raises(UsageError, match='no images were given'):
        detect([], 'red')


def test_fixed_classes(tmp_path):
    known = {'classes': ('red', 'green', 'blue', 'grey')}
    detect = inferencer(ClosedSetFinder, metainfo=known, resize=2.0)
    assert not detect.zero_shot
    (result,) = detect(street())
    assert (result['labels'], result['boxes'][1]) == (['red', 'blue'], list(STREET['blue']))
    (result,) = detect(street(), 'blue, grey')
    assert result['labels'] == ['blue']
    with pytest.raises(UsageError, match="'gren' is none of them; did you mean 'green'"):
        detect(street(), 'gren')
    # without metainfo: the data set's own; the checkpoint comes before both
    assert inferencer(ClosedSetFinder).known_classes[:2] == ['person', 'bicycle']
    file = tmp_path / 'model.pth'
    torch.save(
        {'state_dict': ClosedSetFinder().state_dict(), 'meta': {'dataset_meta': {'classes': ('a', 'b', 'c')}}}, file
    )
    (result,) = inferencer(ClosedSetFinder, metainfo=known, checkpoint=file)(street())
    assert result['labels'] == ['a', 'c']


def test_what_is_reported_of_predictions_by_hand():
    """Scores from the threshold on, best first; boxes in hundredths of a pixel; numbers where there is no name."""
    corners = torch.tensor([[1.2345, 2, 3, 4.006], [5, 6, 7, 8], [1, 1, 2, 2], [0, 0, 9, 9]])
    found = InstanceData(
        bboxes=corners, scores=torch.tensor([0.5, 0.75, 0.4999, 0.87654]), labels=torch.tensor([1, 0, 0, 5])
    )
    image = np.zeros((10, 20, 3), np.uint8)
    arguments = (image, found, ['cat', 'dog'])
    assert DetectionInferencer._to_plain(*arguments, None, 0.5) == {
        'width': 20,
        'height': 10,
        'boxes': [[0, 0, 9, 9], [5, 6, 7, 8], [1.23, 2, 3, 4.01]],
        'labels': ['5', 'cat', 'dog'],
        'scores': [0.8765, 0.75, 0.5],
    }
    assert DetectionInferencer._to_plain(*arguments, ['dog'], 0.5)['boxes'] == [[1.23, 2, 3, 4.01]]
    assert DetectionInferencer._to_plain(*arguments, ['cat'], 0.0)['scores'] == [0.75, 0.4999]


def test_a_chosen_class_keeps_the_colour_of_the_choice(tmp_path):
    detect = inferencer(ClosedSetFinder, metainfo={'classes': ('red', 'green', 'blue', 'grey')})
    (result,) = detect(street(), 'grey, blue', score_thr=0.4, out_dir=tmp_path)
    written = json.loads((tmp_path / 'detections.json').read_text())
    assert written == {'classes': ['grey', 'blue'], 'score_thr': 0.4, 'images': [result]}
    drawn = cv2.imread(str(tmp_path / result['picture']))[..., ::-1]
    x, y = 4 * STREET['blue'][0], 4 * 50
    assert tuple(drawn[y, x]) == class_colour('blue', ['grey', 'blue']) != class_colour('blue', detect.known_classes)


def test_arrays_are_drawn_under_names_of_their_own(tmp_path):
    results = inferencer()([street(), street()], 'red', out_dir=tmp_path)
    assert [result['picture'] for result in results] == ['picture.png', 'picture_2.png']
    assert all(result['file'] is None and (tmp_path / result['picture']).exists() for result in results)


def test_scores_below_three_tenths_are_left_out_by_default():
    detect = inferencer()
    assert detect.zero_shot
    # three classes that are as likely: the square root of 0.36 times a third is above, of 0.36 times a fifteenth below
    words = ('red', 'green', 'blue')
    (found,) = detect(street(grey=(8, 8, 40, 40)), ', '.join(words))
    assert found['scores'] == [round(math.sqrt(0.36 / 3), 4)]
    (found,) = detect(street(grey=(8, 8, 40, 40)), ', '.join(f'{i} {word}' for word in words for i in range(5)))
    assert found['scores'] == []


def test_settings_reach_the_model():
    scopes, asked = [], []

    class Watched(ZeroShotDetector):
        def set_classes(self, names, templates=None):
            asked.append((names, templates))
            super().set_classes(names, 'none')

        def predict(self, *args, **kwargs):
            asked.append(torch.is_grad_enabled())
            return super().predict(*args, **kwargs)

    def model():
        scopes.append(DefaultScope.get_current_instance().scope_name)
        made = zero_shot()
        made.__class__ = Watched
        return made

    # names in a config without a scope are mmdet's
    for scope in (None, 'florence_mm'):
        cfg = config(model)
        cfg.default_scope = scope
        detect = DetectionInferencer(cfg, None, 'cpu', templates='simple')
    assert scopes == ['mmdet', 'florence_mm']
    detect(street(), 'red')
    assert asked == [(['red'], 'simple'), False]
    with pytest.raises(UsageError, match='batch_size is 0; give at least 1'):
        inferencer(batch_size=0)


def test_a_checkpoint_has_all_weights_or_is_refused(tmp_path):
    file = tmp_path / 'model.pth'
    model = zero_shot()
    model.classifier.logit_scale.data.fill_(1.5)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, file)
    loaded = DetectionInferencer(config(zero_shot), file, 'cpu').model
    assert loaded.classifier.logit_scale.item() == 1.5 and not loaded.training
    torch.save({key: value for key, value in model.state_dict().items() if 'projection' not in key}, file)
    with pytest.raises(ValueError, match='lacks 2 of the .* tensors of ZeroShotDetector, among them classifier.image_'):
        DetectionInferencer(config(zero_shot), file, 'cpu')
    torch.save({**model.state_dict(), 'classifier.image_projection': torch.zeros(3, 4)}, file)
    with pytest.raises(ValueError, match=r'image_projection of shape \(3, 4\), the model \(3, 3\)'):
        DetectionInferencer(config(zero_shot), file, 'cpu')
    with pytest.raises(UsageError, match='nowhere.pth does not exist'):
        DetectionInferencer(config(zero_shot), 'nowhere.pth', 'cpu')
    with pytest.raises(UsageError, match='no test_dataloader'):
        DetectionInferencer(Config({'model': {'type': zero_shot}}), None, 'cpu')


def test_names_in_plain_text():
    assert parse_class_names(' cat,dog ,, traffic   light, cat') == ['cat', 'dog', 'traffic light']
    assert parse_class_names(['red, ball', 'dog']) == ['red, ball', 'dog']
    with pytest.raises(UsageError, match='has no class name'):
        parse_class_names(' , ')


def test_a_config_of_mmdet():
    scope = DefaultScope.get_current_instance()
    cfg = get_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')
    cfg.model.backbone.init_cfg = None
    find_step(cfg.test_dataloader, 'Resize').scale = (128, 96)
    cfg.model.test_cfg.score_thr = 0.9
    detect = DetectionInferencer(cfg, None, 'cpu')
    (result,) = detect(street(), 'person, bicycle')
    assert (result['boxes'], result['width']) == ([], 128)
    assert len(detect.known_classes) == 80
    after = DefaultScope.get_current_instance()
    assert (after and after.scope_name) == (scope and scope.scope_name)


def test_the_command(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location('tool_detect', ROOT / 'tools/detect.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    write(tmp_path / 'in/one.png', street())
    (tmp_path / 'in/two.png').write_bytes(b'')
    file = tmp_path / 'config.py'
    torch.save(zero_shot().state_dict(), tmp_path / 'model.pth')
    monkeypatch.setattr('florence_mm.config.load.load_config', lambda path, options: config(zero_shot))
    command = ['detect.py', str(file), str(tmp_path / 'model.pth'), str(tmp_path / 'in'), '--classes', 'red, blue']
    monkeypatch.setattr(sys, 'argv', [*command, '--out-dir', str(tmp_path / 'out'), '--score-thr', '0.75'])
    assert tool.main() == 1
    shown = capsys.readouterr()
    assert shown.out.endswith('out: 1 image and detections.json, 1 object\n1 of 2 images failed\n')
    assert 'two.png is an empty file' in shown.err
    assert (tmp_path / 'out/one.png').exists()
    (tmp_path / 'in/two.png').unlink()
    assert tool.main() == 0
    monkeypatch.setattr(sys, 'argv', [*command[:2], 'nowhere.pth', *command[3:]])
    with pytest.raises(SystemExit) as stop:
        tool.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == 'error: checkpoint nowhere.pth does not exist; check the path\n'


class AtLeast16(ZeroShotDetector):
    """Takes no image with a side below 16 pixels."""

    def predict(self, inputs, data_samples, rescale=True):
        for sample in data_samples:
            if min(sample.img_shape) < 16:
                raise ValueError(f'sides of {sample.img_shape}; give 16')
        return super().predict(inputs, data_samples, rescale)


def test_one_image_does_not_end_the_others(tmp_path):
    def model():
        made = zero_shot()
        made.__class__ = AtLeast16
        return made

    for name, image in (('a', street()), ('b', np.zeros((8, 8, 3), np.uint8)), ('c', street())):
        write(tmp_path / f'in/{name}.png', image)
    for size in (1, 2, 3):
        out = tmp_path / f'out{size}'
        detect = inferencer(model, batch_size=size)
        good, bad, last = detect(tmp_path / 'in', 'red, blue', out_dir=out)
        assert good['boxes'] == last['boxes'] == [list(STREET[name]) for name in ('red', 'blue')]
        assert bad.keys() == {'file', 'error'} and bad['error'].startswith(f'the image {tmp_path}/in/b.png cannot be')
        assert sorted(path.name for path in out.iterdir()) == ['a.png', 'c.png', 'detections.json']
        assert json.loads((out / 'detections.json').read_text())['images'] == [good, bad, last]
    with pytest.raises(ValueError, match='give 16'):
        detect(tmp_path / 'in', 'red', skip_bad=False)


def test_a_model_that_finds_no_boxes():
    def classifier():
        return world['classifier'](world['Pixels']())

    with pytest.raises(UsageError, match='is of a UniCL; give one of a detector'):
        inferencer(classifier)

    class Nothing(world['RectangleFinder']):
        def predict(self, inputs, data_samples, rescale=True):
            for sample in data_samples:
                sample.pred_score = torch.ones(2)
            return data_samples

    with pytest.raises(UsageError, match='is of a Nothing; give one of a detector'):
        inferencer(lambda: Nothing(MODELS.build(PREPROCESSOR)))(street())


@pytest.mark.parametrize('score_thr', [math.nan, -0.1, 1.1, math.inf])
def test_a_threshold_out_of_range(score_thr):
    with pytest.raises(UsageError, match=f'score_thr is {score_thr}; give a number from 0 to 1'):
        inferencer()(street(), 'red', score_thr=score_thr)


def test_predictions_that_are_no_numbers():
    class Broken(ClosedSetFinder):
        def predict(self, *args, **kwargs):
            samples = super().predict(*args, **kwargs)
            samples[0].pred_instances.scores[0] = torch.nan
            return samples

    (result,) = inferencer(Broken)(street())
    assert 'scores or boxes that are not finite numbers; check its weights' in result['error']


def test_without_checkpoint_one_line_tells_it():
    cfg = get_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')
    cfg.model.backbone.init_cfg = None
    logger, lines, handler = MMLogger.get_current_instance(), [], logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    try:
        DetectionInferencer(cfg, None, 'cpu')
    finally:
        logger.removeHandler(handler)
    assert lines == ['no checkpoint: the weights of RetinaNet are those that its config makes'] and not logger.filters
