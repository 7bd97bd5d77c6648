"""One table of all families: its configs, its rows and its data, by numbers known by hand."""

import json
from pathlib import Path

import pytest
from toy_families import cell

from florence_mm.config.load import load_config
from florence_mm.config.pick import find_step, type_name, walk_steps
from florence_mm.errors import DataError, UsageError
from florence_mm.protocols.families import FAMILIES, TASKS
from florence_mm.protocols.family_configs import begins_with, config_of, last_checkpoint, trains
from florence_mm.protocols.family_data import OwnData, keep_captions
from florence_mm.protocols.family_table import describe, panels_of, plain, row_of

# --- the table of families -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', FAMILIES)
def test_configs_of_families_are_there_and_begin_with_runs_of_configs(name):
    for task in FAMILIES[name].models:
        chosen = FAMILIES[name].task(task)
        waiting = [chosen.config]
        while waiting:
            cfg = load_config(waiting.pop())
            for path in begins_with(cfg):
                before = load_config(config_of(path))
                assert Path(path).name == last_checkpoint(before)
                waiting.append(config_of(path))
        cfg = load_config(chosen.config)
        assert cfg.get('test_evaluator') is not None
        assert trains(cfg) == (cfg.get('load_from') is None)  # one that only tests says what it tests
    assert [FAMILIES[name].task(task) is None for task in TASKS] == [
        task not in FAMILIES[name].models for task in TASKS
    ]


# --- rows ------------------------------------------------------------------------------------------------------------


def test_a_row_adds_up_seconds_of_each_run_once_and_has_the_largest_model_and_test():
    cells = {
        'captions': cell(2.5, 3_000_000, 400 * 2**20, pretraining=100.0, captions=50.0),
        'vqa': cell(0.75, 2_000_000, 500 * 2**20, pretraining=100.0, vqa=7.0),
    }
    row = row_of(cells, ('captions', 'vqa', 'matching'))
    assert list(row.values()) == [2.5, 0.75, None, 3.0, 157.0, 500.0]
    unknown = row_of({'vqa': cell(0.5, given=None, pretraining=3.0)}, ('vqa',))
    assert unknown['training, s'] is None and unknown['VQA, accuracy'] == 0.5
    assert set(row_of({}, ('vqa',)).values()) == {None}


def test_the_table_has_dashes_and_says_what_failed():
    results = {'git': {'captions': cell(3.25, git=60.4), 'vqa': 'a.pth is gone; give another'}, 'vilt': {}}
    assert describe(results, ('captions', 'vqa')).splitlines() == [
        '| | captions, CIDEr-D | VQA, accuracy | parameters, M | training, s | peak memory, MiB |',
        '|---|---:|---:|---:|---:|---:|',
        '| GIT | 3.250 | – | 2.00 | 60 | 300 |',
        '| ViLT | – | – | – | – | – |',
        '',
        '- GIT, vqa: a.pth is gone; give another',
    ]
    panels = panels_of(results, ('captions',))
    assert panels['captions, CIDEr-D'] == {'GIT': [3.25], 'ViLT': []} and panels['training, s']['GIT'] == [60.4]
    content = json.loads(json.dumps(plain(results, ('captions',))))
    assert content['git']['tasks']['captions']['seconds'] == {'git': 60.4}
    assert content['git']['tasks']['vqa'].startswith('a.pth') and content['vilt']['row']['captions, CIDEr-D'] is None


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['meter', 'git', 'simvlm', 'blip', 'blip2', 'flamingo'])
def test_own_captions_are_tested_with(name, own):
    cfg = load_config(FAMILIES[name].task('captions').config)
    before = cfg.train_dataloader.to_dict()
    assert OwnData(own.folder / 'data', captions=own.captions).replace_test(cfg)
    tested = find_step(cfg.test_dataloader.dataset.get('dataset', cfg.test_dataloader.dataset), 'ImageTextManifest')
    assert (tested.ann_file, tested.data_prefix) == (str(own.captions.file), str(own.pictures))
    assert cfg.train_dataloader.to_dict() == before
    if name == 'flamingo':  # examples before the samples are from the training set
        assert cfg.test_dataloader.dataset.support.ann_file.endswith('train.jsonl')


@pytest.mark.parametrize('name', ['git', 'simvlm', 'flamingo'])
def test_own_captions_are_trained_on(name, own):
    cfg = load_config(FAMILIES[name].task('captions').config)
    data = OwnData(own.folder / 'data', train_captions=own.captions)
    assert data.replace_training(cfg)
    files = {step.ann_file for step in walk_steps(cfg.train_dataloader) if 'ann_file' in step}
    assert files == {str(own.captions.file)}
    assert not any(type_name(step) == 'DocumentDataset' for step in walk_steps(cfg.train_dataloader))
    assert data.replace_test(cfg) is False
    if name == 'flamingo':
        assert cfg.test_dataloader.dataset.support.ann_file == str(own.captions.file)


def test_own_questions_are_written_in_the_format_of_vqav2(own):
    cfg = load_config(FAMILIES['meter'].task('vqa').config)
    data = OwnData(own.folder / 'data', questions=own.questions, train_questions=own.questions)
    assert data.replace_training(cfg) and data.replace_test(cfg)
    folder = own.folder / 'data'
    assert json.loads((folder / 'test_questions.json').read_text())['questions'] == [
        {'image_id': 'a.png', 'question_id': 0, 'question': 'what is it?'},
        {'image_id': 'b.png', 'question_id': 1, 'question': 'how many?'},
    ]
    first, second = json.loads((folder / 'test_annotations.json').read_text())['annotations']
    assert [one['answer'] for one in first['answers']] == ['dog'] * 10  # a single annotator counts as all
    assert [one['answer'] for one in second['answers']] == ['two', 'three', 'two']
    assert second['multiple_choice_answer'] == 'two'
    assert (folder / 'answers.txt').read_text() == '2\ndog\n'
    answers = str(folder / 'answers.txt')
    assert cfg.model.heads.vqa.answers == cfg.test_dataloader.dataset.answer_file == answers
    assert cfg.train_dataloader.dataset.answer_file == answers and cfg.test_dataloader.dataset.img_pattern == '{}'


def test_the_data_set_reads_own_questions(own):
    from florence_mm.registry import DATASETS

    for name in ('a.png', 'b.png'):
        (own.pictures / name).write_bytes(b'')
    cfg = load_config(FAMILIES['git'].task('vqa').config)
    OwnData(own.folder / 'data', questions=own.questions).replace_test(cfg)
    dataset = {**cfg.test_dataloader.dataset, 'pipeline': [], 'answer_file': ''}
    samples = [DATASETS.build(dataset)[number] for number in range(2)]
    assert [Path(sample['img_path']).name for sample in samples] == ['a.png', 'b.png']
    assert samples[1]['text'] == 'how many?' and samples[1]['answers'] == ['two', 'three', 'two']


def test_florence2_is_tested_by_captions_alone_also_by_own_ones(own):
    cfg = load_config(FAMILIES['florence2'].task('captions').config)
    keep_captions(cfg)
    assert [type_name(one) for one in cfg.test_evaluator] == ['CaptionScores']
    assert OwnData(own.folder / 'data', captions=own.captions).replace_test(cfg)
    (dataset,) = cfg.test_dataloader.dataset.datasets
    rows = [json.loads(line) for line in Path(dataset.ann_file).read_text().splitlines()]
    assert rows == [
        {'image': 'a.png', 'task': 'caption', 'answers': ['a dog', 'one dog']},
        {'image': 'b.png', 'task': 'caption', 'answers': ['a cat']},
    ]


def test_a_model_of_regions_needs_those_of_own_pictures(own):
    cfg = load_config(FAMILIES['uniter'].task('vqa').config)
    data = OwnData(own.folder / 'data', questions=own.questions)
    with pytest.raises(UsageError, match='the questions have none; give their folder with --regions'):
        data.replace_test(cfg)
    OwnData(own.folder / 'data', questions=own.questions._replace(regions=own.regions)).replace_test(cfg)
    assert find_step(cfg.test_dataloader, 'LoadRegions').folder == str(own.regions)


@pytest.mark.parametrize(
    ('line', 'sentence'),
    [
        ('{"image": "a.png", "answer": "two"}', 'questions.jsonl, line 1: .*question'),
        ('{"image": "a.png", "question": "what?", "answers": []}', r'line 1: `answers` is \[\]; give a list of texts'),
        ('{"image": 3, "question": "what?", "answer": "a"}', 'line 1: .*image path'),
        ('', 'has no rows; write one a line'),
    ],
)
def test_unusable_questions_are_refused(own, line, sentence):
    own.questions.file.write_text(line + '\n')
    cfg = load_config(FAMILIES['git'].task('vqa').config)
    with pytest.raises(DataError, match=sentence):
        OwnData(own.folder / 'data', questions=own.questions).replace_test(cfg)
