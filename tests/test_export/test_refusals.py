"""What cannot be exported or opened ends in one sentence, and leaves nothing behind."""

import mmaction.models
import numpy as np
import pytest
import small_tasks as tasks
import torch
from running import CROP, run
from small_models import CLASSIFIER, DETECTOR, METER, RECOGNIZER, TWO_TOWERS, config
from torch import nn
from torch.utils import _pytree as pytree

from florence_mm.errors import DataError, UsageError
from florence_mm.export import load_exported, placing
from florence_mm.export.comparing import largest_difference
from florence_mm.export.detector import check_detector
from florence_mm.export.exporting import export_part
from florence_mm.export.onnx_files import check_opset
from florence_mm.export.parts import parts_of
from florence_mm.ops.deform_conv import modulated_deform_conv2d
from florence_mm.ops.exported import deform_conv2d, kept_by_nms
from florence_mm.registry import MODELS


@pytest.fixture(scope='module')
def towers():
    return MODELS.build(TWO_TOWERS).eval()


def test_models_without_parts():
    with pytest.raises(UsageError, match='Linear cannot be exported; models that can are'):
        parts_of(nn.Linear(2, 2), (32, 32))


@pytest.mark.parametrize('head', ['FusionCaptionHead', 'FusionWrittenAnswerHead'])
def test_model_that_only_writes(head):
    heads = {'writes': {'type': f'florence_mm.{head}', 'max_length': 4}}
    with pytest.raises(UsageError, match="written word by word.*write them with 'florence-mm caption'"):
        parts_of(MODELS.build({**METER, 'heads': heads}), (32, 32))


def test_model_that_writes_answers_to_tasks():
    with pytest.raises(
        UsageError, match="Florence2 has no head .*written word by word.*'florence-mm caption' or 'solve'"
    ):
        parts_of(MODELS.build(tasks.MODEL), (32, 32))


def test_detector_that_classifies_its_boxes_by_text():
    detector = {**DETECTOR, 'bbox_head': {**DETECTOR['bbox_head'], 'num_classes': 1}}
    classifier = {**TWO_TOWERS, 'data_preprocessor': {'type': 'florence_mm.ImageTextDataPreprocessor'}}
    model = MODELS.build({'type': 'florence_mm.ZeroShotDetector', 'detector': detector, 'classifier': classifier})
    with pytest.raises(UsageError, match='takes two files; export the detector and the classifier from their own'):
        parts_of(model, (32, 32))


def test_detector_of_several_steps():
    model = MODELS.build(DETECTOR)
    model.roi_head = nn.Identity()
    with pytest.raises(UsageError, match='finds its boxes in several steps.*export a detector with one dense head'):
        parts_of(model, (32, 32))


def test_recognizer_of_single_frames():
    model = MODELS.build(RECOGNIZER)
    model.__class__ = mmaction.models.Recognizer2D
    with pytest.raises(UsageError, match='frames of a video one by one; export a recognizer with a 3D backbone'):
        parts_of(model, (4, 32, 32))


def test_classifier_that_predicts_in_another_way(monkeypatch):
    model = MODELS.build(CLASSIFIER)
    assert [part.kind for part in parts_of(model, (32, 32))] == ['classifier']
    monkeypatch.setattr(type(model.head), 'predict', lambda *_: [])
    with pytest.raises(UsageError, match='ImageClassifier cannot be exported'):
        parts_of(model, (32, 32))


@pytest.mark.parametrize(
    ('model', 'pack', 'options', 'sentence'),
    [
        (METER, 'PackVQA', ('--part', 'matcher', '--evaluate'), 'no test_dataloader and test_evaluator'),
        (METER, 'PackVQA', ('--calibration', 'a.png'), '--calibration is for --precision int8'),
        (METER, 'PackVQA', ('--classes', 'a cat'), 'classes are those of a zero-shot model'),
        (TWO_TOWERS, 'PackImageText', ('--part', 'matcher'), "has no part 'matcher'; it has image, text"),
    ],
)
def test_options_that_do_not_fit(tmp_path, model, pack, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        run(config(model, CROP, pack=f'florence_mm.{pack}'), tmp_path / 'a.onnx', *options)
    assert list(tmp_path.iterdir()) == []


def test_matcher_has_no_test_of_its_own(tmp_path):
    cfg = config(METER, CROP, pack='florence_mm.PackVQA')
    cfg.test_evaluator = {'type': 'florence_mm.VQAAccuracy'}
    with pytest.raises(UsageError, match='tested by re-ranking.*leave --evaluate out'):
        run(cfg, tmp_path / 'a.onnx', '--part', 'matcher', '--evaluate')


def test_pictures_that_do_not_calibrate_texts(tmp_path):
    for cfg, part, takes in (
        (config(METER, CROP, pack='florence_mm.PackVQA'), 'answerer', 'texts too'),
        (config(TWO_TOWERS, CROP), 'text', 'no pictures'),
    ):
        options = ('--part', part, '--precision', 'int8', '--calibration', str(tmp_path))
        with pytest.raises(UsageError, match=f'the {part} part takes {takes}; leave it out, or'):
            run(cfg, tmp_path / 'a.onnx', *options)
    assert list(tmp_path.iterdir()) == []


def test_unknown_part(towers):
    with pytest.raises(UsageError, match="has no part 'imgae'; it has image, text, did you mean 'image'"):
        parts_of(towers, (32, 32), only='imgae')
    with pytest.raises(UsageError, match='give classes for a classifier'):
        parts_of(towers, (32, 32), only='classifier')
    with pytest.raises(UsageError, match='give --size HEIGHT WIDTH'):
        parts_of(towers, None, only='image')


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'nms': {'type': 'soft_nms', 'iou_threshold': 0.5}}, 'only nms of type "nms"'),
        ({'min_bbox_size': 4}, 'min_bbox_size 0'),
        ({'max_per_img': 0}, 'max_per_img from 1'),
    ],
)
def test_detectors_with_other_suppression(change, sentence):
    model = MODELS.build({**DETECTOR, 'test_cfg': {**DETECTOR['test_cfg'], **change}})
    with pytest.raises(UsageError, match=sentence):
        check_detector(model)


def test_size_at_which_nothing_can_be_free(tmp_path):
    # its map has eight tokens a side, as many as the window
    encoder = TWO_TOWERS['image_encoder']
    arch = {**encoder['arch'], 'depths': [1], 'num_heads': [1], 'window_size': 8}
    model = MODELS.build({**TWO_TOWERS, 'image_encoder': {**encoder, 'arch': arch, 'out_indices': (0,)}}).eval()
    (part,) = parts_of(model, (32, 48), free_size=True, only='image')
    with pytest.raises(UsageError, match='give a larger --size'):
        export_part(part, tmp_path / 'image.pt2', {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', ['model.pth', 'model', 'model.onnx.zip'])
def test_formats(name):
    with pytest.raises(UsageError, match='name a file .onnx'):
        placing.format_of(name)


def test_missing_packages(monkeypatch):
    monkeypatch.setattr(placing, 'find_spec', lambda name: None)
    with pytest.raises(UsageError, match=r'onnx files need onnx and onnxscript and onnxruntime; install .*\[export\]'):
        placing.require_packages('onnx')


@pytest.mark.parametrize('opset', [-1, 18, 99])
def test_opsets(opset):
    with pytest.raises(UsageError, match=f'opset {opset} cannot be written; give one from 19 to 23'):
        check_opset(opset)


@pytest.mark.parametrize(('name', 'precision'), [('a.onnx', 'bf16'), ('a.pt2', 'int8'), ('a.pt2', 'bf16')])
def test_precisions(towers, tmp_path, name, precision):
    (part,) = parts_of(towers, (32, 32), only='image')
    with pytest.raises(UsageError, match=f'cannot be of {precision}'):
        export_part(part, tmp_path / name, {}, precision=precision)


def test_existing_targets_and_sources(tmp_path):
    file = tmp_path / 'a.onnx'
    file.write_bytes(b'kept')
    with pytest.raises(UsageError, match='exists; name another file, or give --overwrite'):
        placing.check_target(file, [], False)
    with pytest.raises(UsageError, match='is the input'):
        placing.check_target(file, [file], True)
    placing.check_target(file, ['other'], True)


def test_files_take_their_places_together(tmp_path):
    with placing.placed(tmp_path / 'a.xml') as path:
        path.write_text('graph')
        path.with_suffix('.bin').write_text('weights')
        assert not (tmp_path / 'a.xml').exists()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {'a.xml': 'graph', 'a.bin': 'weights'}


def test_failed_export_keeps_the_older_file(tmp_path):
    (tmp_path / 'a.onnx').write_text('older')
    with pytest.raises(RuntimeError), placing.placed(tmp_path / 'a.onnx') as path:
        path.write_text('half')
        raise RuntimeError
    assert [file.read_text() for file in tmp_path.iterdir()] == ['older']


@pytest.mark.parametrize('threads', [0, -1, '2', 1.5, True])
def test_threads_that_cannot_be(tmp_path, threads):
    with pytest.raises(UsageError, match='threads is .*; give at least 1, a whole number'):
        load_exported(tmp_path / 'a.onnx', threads)


@pytest.mark.parametrize(('suffix', 'precision'), [('.onnx', 'bf16'), ('.pt2', 'bf16'), ('.xml', 'int8'), ('.xml', 1)])
def test_precision_that_a_runtime_would_ignore(tmp_path, suffix, precision):
    with pytest.raises(UsageError, match=f'precision is {precision!r}; of an OpenVINO file'):
        load_exported(tmp_path / f'a{suffix}', precision=precision)


@pytest.mark.parametrize('suffix', ['.onnx', '.xml', '.pt2'])
def test_damaged_files(tmp_path, suffix):
    file = tmp_path / f'a{suffix}'
    with pytest.raises(DataError, match='cannot be read'):
        load_exported(file)
    file.write_bytes(b'no model at all')
    with pytest.raises(DataError, match='cannot be opened'):
        load_exported(file)
    file.unlink()
    file.mkdir()
    with pytest.raises(DataError, match='is a folder'):
        load_exported(file)


def test_differences_of_boxes_by_hand():
    dets = np.array([[[0, 0, 10, 10, 0.9], [50, 0, 60, 10, 0.5], [0, 0, 0, 0, 0.0]]])
    labels = np.array([[1, 2, -1]])
    same = {'dets': dets, 'labels': labels}
    assert largest_difference(same, same) == 0
    moved = dets.copy()
    moved[0, 1, 2] += 3
    assert largest_difference(same, {'dets': moved, 'labels': labels}, side=100) == pytest.approx(0.03)
    # two boxes of equal score may change places
    dets[0, 1, 4] = 0.9
    other = {'dets': dets[:, [1, 0, 2]], 'labels': labels[:, [1, 0, 2]]}
    assert largest_difference(same, other) == 0
    assert largest_difference(same, {'dets': dets, 'labels': np.array([[1, 1, -1]])}) == np.inf
    assert largest_difference(same, {'dets': dets, 'labels': np.array([[1, -1, -1]])}) == np.inf


def test_values_that_are_no_numbers_differ():
    values = {'scores': np.array([0.25, 0.75])}
    assert largest_difference(values, {'scores': np.array([0.25, 0.5])}) == 0.25
    assert largest_difference(values, {'scores': np.array([0.25, np.nan])}) == np.inf
    assert largest_difference(values, {'scores': np.array([0.25])}) == np.inf


def test_suppression_by_hand():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [0, 0, 9, 10]]])
    scores = torch.tensor([[0.5, 0.9, 0.1, 0.0]])
    # the second overlaps the first by 0.9; the fourth takes no part
    assert kept_by_nms(boxes, scores, 0.8).tolist() == [[False, True, True, False]]
    assert kept_by_nms(boxes, scores, 0.95).tolist() == [[True, True, True, False]]


def test_whole_convolution_is_the_usual_one():
    x, weight, bias = torch.randn(2, 4, 9, 7), torch.randn(6, 4, 3, 3), torch.randn(6)
    offset, mask = torch.randn(2, 18, 5, 4), torch.rand(2, 9, 5, 4)
    whole = deform_conv2d(x, offset, mask, weight, bias, [2, 2], [1, 1], [1, 1], 1, 1)
    assert torch.allclose(whole, modulated_deform_conv2d(x, offset, mask, weight, bias, 2, 1), atol=1e-6)
    arguments = (x, offset, mask, weight, bias, [2, 2], [1, 1], [1, 1], 1, 1)
    torch.library.opcheck(deform_conv2d, arguments, test_utils=('test_schema', 'test_faketensor'))


@pytest.mark.parametrize(
    ('model', 'size'),
    [
        (TWO_TOWERS, (32, 32)),
        (METER, (32, 32)),
        (CLASSIFIER, (32, 32)),
        (DETECTOR, (48, 32)),
        (RECOGNIZER, (2, 32, 32)),
    ],
    ids=['two towers', 'METER', 'classifier', 'detector', 'recognizer'],
)
@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_parts_traced_run_other_values_and_batches(model, size):
    for part in parts_of(MODELS.build(model).eval().requires_grad_(False), size):
        traced = torch.jit.trace(part.module, tuple(part.example(2).values()), check_trace=False)
        for batch in (1, 3):
            inputs = part.example(batch, seed=batch).values()
            found, expected = traced(*inputs), part.module(*inputs)
            for one, other in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True):
                assert one.shape == other.shape and (one - other).abs().max() < 1e-5
