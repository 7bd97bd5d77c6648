"""The embedded suite from the command to the table, with small data and random weights, against the metrics alone."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from forks import as_ranks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small_suite import ENTRIES, annotate, detections, write_data, write_weights

from florence_mm.apis.multimodal_inferencer import MultimodalInferencer
from florence_mm.apis.zoo import init_model
from florence_mm.commands import evaluate
from florence_mm.config.load import load_config
from florence_mm.errors import UsageError
from florence_mm.evaluation.functional.vqa import vqa_accuracy
from florence_mm.protocols import suite
from florence_mm.protocols.config_test import ConfigTest
from florence_mm.protocols.embedded import LARGE_DIGIT_QUESTIONS
from florence_mm.protocols.embedded import SCENES as SCENES_SOURCE
from florence_mm.protocols.suites import TOWERS

SCENES = 'florence_mm::dynamic_head/atss_coswin-micro_fpn_dyhead_2xb4-8e_scenes.py'
ZERO_SHOT = 'florence_mm::dynamic_head/zero-shot_coswin-micro_fpn_dyhead_2xb4-3e_scenes.py'
CAPTIONS = 'florence_mm::unicl/unicl_coswin-micro_2xb32-5e_large-digits.py'
QUESTIONS = 'florence_mm::meter/meter_coswin-micro_2xb64-6e_large-digit-vqa.py'
MOTIONS = 'florence_mm::video_coswin/video_coswin-micro_2xb5-3e_clips.py'
NAMES = [entry.protocol.name for entry in ENTRIES]


def run_command(*argv: object) -> int:
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    return evaluate.run(parser.parse_args([str(item) for item in argv]))


class Evaluated:
    """Data, weights and results of one run of the command."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / 'data'
        write_data(self.data)
        self.weights = write_weights(folder, self.data)
        truth = self.data / 'scenes/annotations/test.json'
        self.images = json.loads(truth.read_text())['images']
        self.found = detections(init_model(SCENES, self.weights[SCENES]), self.images, self.data / 'scenes/test')
        # a random detector finds no digit: the truth is every second of its boxes
        annotate(truth, self.found[::2])
        few = folder / 'few.py'
        few.write_text(f"_base_ = '{ZERO_SHOT}'\nmodel = dict(detector=dict(test_cfg=dict(max_per_img=8)))\n")
        self.few = few

    def evaluate(self, out: str, names: Sequence[str], *options: object) -> int:
        """Run the command on these protocols; returns its exit status."""
        own = [entry for entry in ENTRIES if entry.trained and entry.protocol.name in names]
        given = [('--task-checkpoint', entry.protocol.name, self.weights[entry.config]) for entry in own]
        if 'detection/zero-shot/scenes' in names:
            given.append(('--task-config', 'detection/zero-shot', self.few))
        return run_command(
            *('--suite', 'embedded', '--only', *names, '--checkpoint', self.weights[TOWERS['embedded']]),
            *('--data-root', self.data, '--out', self.folder / out, *options),
            *(part for parts in given for part in parts),
        )

    def figures(self, out: str = 'out') -> dict[str, dict]:
        """Figures by protocol, from the table in JSON."""
        content = json.loads((self.folder / out / 'results.json').read_text())
        return {row['name']: row['figures'] for row in content['protocols']}


@pytest.fixture(scope='module')
def evaluated(tmp_path_factory):
    run = Evaluated(tmp_path_factory.mktemp('suite'))
    run.status = run.evaluate('out', NAMES)
    return run


def test_all_protocols_run_and_leave_the_table(evaluated):
    out = evaluated.folder / 'out'
    figures = evaluated.figures()
    assert evaluated.status == 0
    assert list(figures) == NAMES
    assert all(entry.protocol.metric in figures[entry.protocol.name] for entry in ENTRIES)
    assert (out / 'results.png').read_bytes()[:4] == b'\x89PNG'
    accuracy = figures['vqa/large_digits']['vqa/accuracy']
    assert f'| vqa/large_digits | accuracy | {100 * accuracy:.1f} |' in (out / 'results.md').read_text()


def test_a_second_run_computes_nothing(evaluated, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, '_load', lambda *args: pytest.fail('a model was loaded'))
    before = evaluated.figures()
    assert evaluated.evaluate('out', NAMES) == 0
    assert evaluated.figures() == before
    assert f'{len(NAMES)} done ({len(NAMES)} kept from before)' in capsys.readouterr().out


def test_batch_size_and_workers_change_no_figure(evaluated):
    names = ['retrieval/fine-tuned/large_digits', 'vqa/large_digits']
    assert evaluated.evaluate('again', names, '--batch-size', 3, '--num-workers', 1) == 0
    before, after = evaluated.figures(), evaluated.figures('again')
    assert list(after) == names
    assert all(after[name] == pytest.approx(before[name]) for name in names)


def test_two_processes_have_the_figures_of_one(evaluated):
    names = ['retrieval/fine-tuned/large_digits', 'vqa/large_digits', 'detection/scenes']
    as_ranks(lambda: evaluated.evaluate('two', names, '--launcher', 'pytorch', '--num-workers', 0), 2)
    before, after = evaluated.figures(), evaluated.figures('two')
    assert sorted(after) == sorted(names)
    assert all(after[name] == pytest.approx(before[name]) for name in names)


def test_training_in_several_processes_is_another_command(evaluated, monkeypatch):
    monkeypatch.setenv('RANK', '0')
    with pytest.raises(UsageError, match='--train trains in one process; train with tools/dist_train.sh'):
        evaluated.evaluate('trained', NAMES[:1], '--train', '--launcher', 'pytorch')


@torch.no_grad()
def test_retrieval_equals_the_metric_on_features(evaluated):
    model = init_model(CAPTIONS, evaluated.weights[CAPTIONS])
    rows = [json.loads(line) for line in (evaluated.data / 'large_digit_questions/test.jsonl').read_text().splitlines()]
    files = [evaluated.data / 'large_digits/test' / row['image'] for row in rows]
    batch = model.model.data_preprocessor(model.preprocess(files))
    images = model.model.extract_image_feat(batch['inputs'])
    texts = sorted({text for row in rows for text in row['texts']})
    matches = [(place, texts.index(text)) for place, row in enumerate(rows) for text in row['texts']]
    similarity = images @ model.model.extract_text_feat(texts).T  # (8, T)
    positive = torch.zeros_like(similarity, dtype=torch.bool)
    positive[tuple(zip(*matches, strict=True))] = True
    # fraction of the images whose best caption is one of theirs
    best = positive.gather(1, similarity.argmax(1, keepdim=True)).double().mean().item()
    figures = evaluated.figures()['retrieval/fine-tuned/large_digits']
    assert figures['retrieval/i2t_R@1'] == pytest.approx(best)
    assert 0 < figures['retrieval/t2i_R@5'] < 1


def test_detection_equals_cocoeval(evaluated):
    truth = COCO(evaluated.data / 'scenes/annotations/test.json')
    evaluation = COCOeval(truth, truth.loadRes(evaluated.found), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    figures = evaluated.figures()['detection/scenes']
    assert evaluation.stats[0] > 0.2
    assert figures['bbox/AP'] == pytest.approx(evaluation.stats[0], abs=1e-6)


def test_questions_equal_the_official_accuracy(evaluated):
    folder = evaluated.data / 'large_digit_questions'
    questions = json.loads((folder / 'test_questions.json').read_text())['questions']
    answers = {
        row['question_id']: [answer['answer'] for answer in row['answers']]
        for row in json.loads((folder / 'test_annotations.json').read_text())['annotations']
    }
    content = load_config(QUESTIONS)
    content.model.heads.vqa.answers = str(folder / 'answers.txt')
    ask = MultimodalInferencer(content, evaluated.weights[QUESTIONS])
    scores = []
    for question in questions:
        image = evaluated.data / f'large_digits/test/{question["image_id"]:06d}.png'
        (found,) = ask(image, questions=question['question'])
        scores.append(vqa_accuracy(found['answers'][0]['answers'][0], answers[question['question_id']]))
    figures = evaluated.figures()['vqa/large_digits']
    assert figures['vqa/accuracy'] == pytest.approx(sum(scores) / len(scores))
    assert figures['vqa/accuracy'] > 0


@torch.no_grad()
def test_recognition_counts_right_clips(evaluated):
    model = init_model(MOTIONS, evaluated.weights[MOTIONS])
    rows = [line.rsplit(' ', 1) for line in (evaluated.data / 'clips/test.txt').read_text().splitlines()]
    right = 0
    for file, label in rows:
        (sample,) = model.model.test_step(model.preprocess(evaluated.data / 'clips' / file))
        right += int(sample.pred_score.argmax()) == int(label)
    figures = evaluated.figures()['video/clips']
    assert figures['acc/top1'] == pytest.approx(right / len(rows))


def test_missing_data_are_no_error_unless_strict(tmp_path, evaluated, capsys):
    towers = evaluated.weights[TOWERS['embedded']]
    arguments = ('--checkpoint', towers, '--data-root', tmp_path / 'none', '--out', tmp_path / 'out')
    only = ('--only', 'retrieval/zero-shot', 'vqa')
    assert run_command(*arguments, *only) == 0
    assert run_command(*arguments, *only, '--strict') == 1
    printed = capsys.readouterr().out
    assert f'{tmp_path}/none/flickr30k/karpathy/test.jsonl' in printed
    assert run_command('--list', '--data-root', tmp_path / 'none', *only) == 0
    assert 'VQAv2 is not there: download it from https://visualqa.org/download.html' in capsys.readouterr().out
    assert suite.MISSING in (tmp_path / 'out/results.md').read_text()


def test_views_of_an_image_are_merged(evaluated):
    own = evaluated.folder / 'views.py'
    own.write_text(
        f"_base_ = '{SCENES}'\n"
        "tta_model = dict(type='mmdet.DetTTAModel', "
        "tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.6), max_per_img=100))\n"
        'pack = _base_.test_pipeline[-1]\n'
        'resize = _base_.test_pipeline[2]\n'
        "tta_pipeline = [*_base_.test_pipeline[:2], dict(type='mmdet.TestTimeAug', transforms=[[resize], "
        '[dict(type="mmdet.RandomFlip", prob=0.0)], '
        '[dict(pack, meta_keys=(*pack["meta_keys"], "flip", "flip_direction"))]])]\n'
    )
    model = init_model(own, evaluated.weights[SCENES])
    protocol = ConfigTest('detection/views', 'detection', 'bbox/AP', SCENES_SOURCE, views=True)
    figures = protocol.run(model, evaluated.data, evaluated.folder / 'views', batch_size=1)
    # one view, the image itself
    assert figures['bbox/AP'] == pytest.approx(evaluated.figures()['detection/scenes']['bbox/AP'], abs=0.02)
    assert not model.model.training


def test_answers_without_annotations_are_written(evaluated):
    content = load_config(QUESTIONS)
    content.model.heads.vqa.answers = str(evaluated.data / 'large_digit_questions/answers.txt')
    folder = 'data/large_digit_questions'
    dataset = {
        'type': 'florence_mm.VQADataset',
        'question_file': f'{folder}/test_questions.json',
        'answer_file': f'{folder}/answers.txt',
        'data_prefix': 'data/large_digits/test',
        'img_pattern': '{:06d}.png',
        'test_mode': True,
    }
    evaluator = {'type': 'florence_mm.VQAAccuracy', 'outfile': 'work_dirs/answers.json'}
    protocol = ConfigTest('vqa/test', 'vqa', 'vqa/accuracy', LARGE_DIGIT_QUESTIONS, dataset, evaluator)
    out = evaluated.folder / 'server'
    figures = protocol.run(init_model(content, evaluated.weights[QUESTIONS]), evaluated.data, out)
    questions = json.loads((evaluated.data / 'large_digit_questions/test_questions.json').read_text())['questions']
    rows = json.loads((out / 'answers.json').read_text())
    assert sorted(row['question_id'] for row in rows) == sorted(row['question_id'] for row in questions)
    assert 'vqa/accuracy' not in figures
