"""The projects: the parts without the framework, and pretraining in stages and by several losses."""

import ast
import dataclasses
import importlib
import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch

from florence_mm.config.load import load_config
from florence_mm.config.pick import find_step
from florence_mm.errors import UsageError
from florence_mm.language.prompts import get_class_names

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module('projects.plain_pytorch.train')


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_the_plain_page_learns(page, seed):
    # with seeds 0 to 4 two epochs end at 0.71, 0.82, 0.78, 0.81 and 0.67; chance is 0.10
    assert page.train(epochs=2, seed=seed) > 0.4


def test_the_plain_page_needs_no_framework(page):
    imports = [
        node for node in ast.walk(ast.parse(Path(page.__file__).read_text())) if isinstance(node, ast.ImportFrom)
    ]
    rooms = {'corpora.digits', 'language.prompts', 'models.backbones', 'models.text', 'models.tokenizers'}
    ours = {node.module for node in imports if node.module.startswith('florence_mm')}
    assert ours == {f'florence_mm.{room}' for room in (*rooms, 'ops.contrastive')}
    assert {node.module.split('.')[0] for node in imports} == {'florence_mm', 'torch'}


def test_pairs_of_the_plain_page_share_a_label_where_class_or_caption_agree(page):
    digits = torch.arange(10).repeat(40)
    texts, labels = page.write_texts(digits)
    captions = {caption.format(name) for caption in page.CAPTIONS for name in page.NAMES}
    for text, label, digit in zip(texts, labels.tolist(), digits.tolist(), strict=True):
        assert page.NAMES[digit] in text
        assert (label == digit) == (text not in captions)
    captioned = {(text, label) for text, label in zip(texts, labels.tolist(), strict=True) if text in captions}
    assert len(captioned) == len({text for text, _ in captioned}) == len({label for _, label in captioned}) > 30


def test_shifts_of_the_plain_page(page, monkeypatch):
    images = page.read_split('test').tensors[0][:3]
    assert images.shape == (3, 3, 32, 32) and images.min() == -1 and images.max() == 1
    middle = torch.full((4, 3), 0.5)
    monkeypatch.setattr(torch, 'rand', lambda *shape: middle)
    torch.testing.assert_close(page.augment(images), images)
    # 8 % of the side to the left and up are 2.56 pixels; what comes in is black
    monkeypatch.setattr(torch, 'rand', lambda *shape: torch.cat([middle[:2], middle[2:] + 0.5]))
    moved = page.augment(images)
    assert (moved[:, :, -2:] == -1).all() and (moved[..., -2:] == -1).all()
    torch.testing.assert_close(moved[..., 4, 4], images[..., 6:8, 6:8].mul(weights()).sum((2, 3)), atol=1e-5, rtol=0)


def weights():
    """Of the pixels 6 and 7 at 6.56, down and across."""
    side = torch.tensor([0.44, 0.56])
    return side[:, None] * side


# --- projects/pretraining ---------------------------------------------------------------------------------------------


@pytest.fixture
def pretraining(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    parts = ('data', 'runs', 'stages', 'losses')
    return SimpleNamespace(**{name: importlib.import_module(f'projects.pretraining.{name}') for name in parts})


@pytest.fixture
def digit_pairs(pretraining, monkeypatch, tmp_path):
    monkeypatch.setattr(pretraining.data, 'COUNTS', {'train': (70, 80), 'test': (12, 8)})
    pretraining.data.write_digit_pairs(tmp_path / 'data')
    return tmp_path / 'data'


def rows_of(folder, name):
    return [json.loads(line) for line in (folder / f'{name}.jsonl').read_text().splitlines()]


def test_digit_pairs_mix_classes_templates_and_captions(digit_pairs):
    train = rows_of(digit_pairs, 'train')
    assert len(train) == 150 and sum('texts' in row for row in train) == 80
    augmented = [row for row in train if row.get('augmented')]
    assert len(augmented) == 14  # every fifth of 70
    assert all(row['label'] in row['text'] != row['label'] for row in augmented)
    classes = rows_of(digit_pairs, 'classes')
    assert [row['image'] for row in classes] == [row['image'] for row in train if 'texts' not in row]
    assert {row['class'] for row in classes} == set(get_class_names('digits'))
    test = rows_of(digit_pairs, 'test_classes') + rows_of(digit_pairs, 'test_captions')
    assert len(test) == 20 and all(row['image'].startswith('test/') for row in test)
    # the left half and the right half of a picture of two are its digits
    left, right = re.match(r'(\w+) and (\w+)', train[70]['texts'][0]).groups()
    assert all(text.index(left) <= text.rindex(right) for text in train[70]['texts'])
    picture = cv2.imread(str(digit_pairs / train[70]['image']), cv2.IMREAD_GRAYSCALE)
    assert picture.shape == (48, 48) and picture[:, :24].max() > 200 and picture[:, 24:].max() > 200


def test_digit_pairs_are_the_same_again(pretraining, digit_pairs, tmp_path):
    pretraining.data.write_digit_pairs(tmp_path / 'again')
    files = sorted(path.relative_to(digit_pairs) for path in digit_pairs.rglob('*.*'))
    assert len(files) == 170 + 5  # with the record
    assert all((tmp_path / 'again' / file).read_bytes() == (digit_pairs / file).read_bytes() for file in files)


def pipeline(cfg):
    return [step.type.split('.')[-1] for step in cfg.train_dataloader.dataset.pipeline]


def loaders(cfg):
    return [cfg[f'{phase}_dataloader'] for phase in ('train', 'val', 'test')]


def side(loader):
    return find_step(loader.dataset.pipeline, 'ResizeEdge').scale


def test_each_stage_changes_what_it_says_and_the_other_run_does_not(pretraining):
    stages = {run.name: run for run in pretraining.stages.RUNS}
    found = {name: load_config(str(pretraining.runs.CONFIGS / f'{run.config}.py')) for name, run in stages.items()}
    with_prompts = {name for name, cfg in found.items() if 'RandomPrompt' in pipeline(cfg)}
    assert with_prompts == {'stage1', 'stage2_templates'}
    dropping = {name for name, cfg in found.items() if cfg.train_dataloader.dataset.get('drop_augmented')}
    assert dropping == {'stage2', 'stage3', 'stage3_32'}
    assert pipeline(found['stage1']) == pipeline(found['stage2_templates'])
    for one, other in (('stage2', 'stage2_templates'), ('stage3', 'stage3_32')):
        assert stages[one].begins_with == stages[other].begins_with
        for key in ('optim_wrapper', 'param_scheduler', 'train_cfg'):
            assert found[one][key] == found[other][key]
    sides = {name: [cfg.model.image_encoder.img_size, *map(side, loaders(cfg))] for name, cfg in found.items()}
    assert sides.pop('stage3') == [48] * 4
    assert all(found == [32] * 4 for found in sides.values())


def test_losses_differ_by_the_loss_alone(pretraining):
    unicl, clip, classifier = (
        load_config(str(pretraining.runs.CONFIGS / f'{run.config}.py')) for run in pretraining.losses.RUNS
    )
    assert clip.model.pop('positives') == 'own_text'
    assert clip.model == unicl.model and clip.optim_wrapper == unicl.optim_wrapper
    assert clip.train_dataloader == unicl.train_dataloader and clip.train_cfg == unicl.train_cfg == classifier.train_cfg
    sizes = {key: value for key, value in unicl.model.image_encoder.items() if value is not None}
    assert classifier.model.backbone.pop('init_cfg').checkpoint == unicl.load_from
    assert classifier.model.backbone == sizes
    assert classifier.train_dataloader.dataset.ann_file == 'data/digit_pairs/classes.jsonl'


def test_runs_begin_with_others_and_are_done_once(pretraining, digit_pairs, tmp_path):
    runs = pretraining.runs
    short = {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2, 'default_hooks.checkpoint.interval': 2}
    first = runs.Run('first', 'the first', pretraining.losses.RUNS[1].config, None, {**short, 'load_from': None})
    second = runs.Run('second', 'the second', pretraining.stages.RUNS[3].config, 'first', short)
    for run in (first, second):
        scores = runs.train(run, 0, digit_pairs, tmp_path)
        assert set(scores) == set(runs.METRICS) and all(0 <= score <= 100 for score in scores.values())
    tested = tmp_path / 'second_seed0/test_metrics.json'
    assert 'first_seed0' in (tmp_path / 'second_seed0' / f'{second.config}.py').read_text()
    tested.write_text(json.dumps({**json.loads(tested.read_text()), 'metrics': {'zero_shot/top1': 0.5}}))
    assert runs.train(second, 0, digit_pairs, tmp_path)['classification, top-1'] == 50.0
    classifier = dataclasses.replace(pretraining.losses.RUNS[2], options=short, begins_with='second')
    scores = runs.train(classifier, 0, digit_pairs, tmp_path)
    assert set(scores) == {'classification, top-1'} and 0 <= scores['classification, top-1'] <= 100


def test_the_table_has_each_seed_and_the_differences(pretraining):
    runs = [pretraining.runs.Run('a', 'way a', ''), pretraining.runs.Run('b', 'way b', '')]
    metric = 'classification, top-1'
    scores = {'a': [{metric: 60.0}, {metric: 70.0}], 'b': [{metric: 50.0}, {metric: 75.0}]}
    assert pretraining.runs.rows(runs, scores)[2] == '| way a | 65.0 (60.0, 70.0) | – | – |'
    line = pretraining.runs.difference(runs, scores, 'a', 'b', metric)
    assert line == f'- {metric}: +2.5 (+10.0, -5.0) for "way a" over "way b"'
    assert pretraining.runs.difference(runs, scores, 'a', 'b', 'image to text, R@1') == ''


# --- projects/filtered_captions ---------------------------------------------------------------------------------------


@pytest.fixture
def filtered(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module('projects.filtered_captions.compare')


def text_rows():
    """Four pictures with a given text each, of which two are exchanged, and a drawn one each."""
    match = {'web': (0.9, 0.2, 0.6, 0.3), 'synthetic': (0.8, 0.7, None, 0.1)}
    return [
        {'path': f'pictures/{n}.png', 'text': f'{source} {n}', 'source': source, 'match': match[source][n]}
        for n in range(4)
        for source in match
    ]


EXCHANGED = {'0.png': False, '1.png': False, '2.png': True, '3.png': True}


def test_sets_of_captions_are_those_of_the_filter_and_as_many_at_random(filtered):
    chosen = {way: [row['text'] for row in rows] for way, rows in filtered.choose(text_rows(), 0.5, 0).items()}
    assert set(chosen) == set(filtered.WAYS)
    random = chosen.pop('random')
    assert chosen == {
        'web': ['web 0', 'web 1', 'web 2', 'web 3'],
        'filtered': ['web 0', 'web 2'],
        'drawn': ['synthetic 0', 'synthetic 1'],
        'capfilt': ['web 0', 'synthetic 0', 'synthetic 1', 'web 2'],
    }
    assert len(set(random)) == 4 and 'synthetic 2' not in random
    others = [[row['text'] for row in filtered.choose(text_rows(), 0.5, seed)['random']] for seed in range(5)]
    assert len({tuple(texts) for texts in others}) > 1


def test_area_and_share_of_false_captions_by_hand(filtered):
    rows = text_rows()
    # of the four pairs of a true and an exchanged given text, the filter puts 0.2 below both exchanged ones
    assert filtered.filter_auc(rows, EXCHANGED) == 0.5
    assert filtered.false_share(rows, EXCHANGED) == 50.0
    assert filtered.false_share([row for row in rows if row['source'] == 'synthetic'], EXCHANGED) == 0.0


GIT = str(ROOT / 'configs/git/git_coswin-micro_caption_2xb16-4e_large-digits.py')
CAPTIONS = str(ROOT / 'configs/meter/meter_coswin-micro_caption_2xb16-4e_large-digits.py')


@pytest.mark.parametrize('rows', [7, 320, 3000])
def test_all_sets_are_trained_on_by_as_many_steps(filtered, tmp_path, rows):
    manifest = tmp_path / 'captions.jsonl'
    manifest.write_text(''.join(f'{{"image": "0.png", "text": "text {n}"}}\n' for n in range(rows)))
    cfg = filtered.train_on(load_config(CAPTIONS), manifest, tmp_path, 20, 0)
    listed = Path(cfg.train_dataloader.dataset.ann_file).read_text().splitlines()
    assert len(listed) == 20 * 16 and set(listed) <= set(manifest.read_text().splitlines())
    times = Counter(listed)
    assert len(times) == min(rows, 320) and max(times.values()) - min(times.values()) <= 1
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval, cfg.default_hooks.checkpoint.interval) == (1, 1, 1)
    # warm-up over a twentieth, as in the config
    assert [one['end'] for one in cfg.param_scheduler] == pytest.approx([0.05, 1.0])
    assert all(one['convert_to_iter_based'] for one in cfg.param_scheduler)


def test_decay_by_epochs_is_that_of_the_whole_run(filtered, tmp_path):
    manifest = tmp_path / 'captions.jsonl'
    manifest.write_text('{"image": "0.png", "text": "a two"}\n')
    decay = dict(type='ExponentialLR', gamma=0.9, by_epoch=True)
    cfg = filtered.train_on(load_config(CAPTIONS, {'param_scheduler': [decay]}), manifest, tmp_path, 5, 0)
    assert cfg.param_scheduler[0]['gamma'] == pytest.approx(0.6561)


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (
            {'train_dataloader.dataset.type': 'florence_mm.VQADataset'},
            'trains on florence_mm.VQADataset; give a config',
        ),
        (
            {'train_cfg': dict(by_epoch=False, max_iters=9)},
            r'has no train_cfg\.max_epochs; give a config that trains by',
        ),
        (
            {'param_scheduler': [dict(type='MultiStepLR', milestones=[1])]},
            'milestones of MultiStepLR is of single epochs',
        ),
    ],
)
def test_what_cannot_be_trained_on_is_refused(filtered, tmp_path, options, sentence):
    manifest = tmp_path / 'captions.jsonl'
    manifest.write_text('{"image": "0.png", "text": "a two"}\n')
    cfg = load_config(CAPTIONS)
    if 'train_cfg' in options:
        cfg.train_cfg = options['train_cfg']
    else:
        cfg.merge_from_dict(options)
    with pytest.raises(UsageError, match=sentence):
        filtered.train_on(cfg, manifest, tmp_path, 200, 0)


def test_no_captions_are_refused(filtered, tmp_path):
    (tmp_path / 'drawn.jsonl').write_text('')
    with pytest.raises(UsageError, match=r'drawn\.jsonl has no captions to train on; lower --threshold, or leave'):
        filtered.train_on(load_config(CAPTIONS), tmp_path / 'drawn.jsonl', tmp_path, 2, 0)


def test_other_captions_are_another_run(filtered, tmp_path):
    manifest, lists = tmp_path / 'captions.jsonl', []
    for text in ('a two', 'a two', 'a three'):
        manifest.write_text(f'{{"image": "0.png", "text": "{text}"}}\n')
        lists.append(filtered.train_on(load_config(CAPTIONS), manifest, tmp_path, 2, 0).train_dataloader.dataset)
    assert lists[0].ann_file == lists[1].ann_file != lists[2].ann_file


def test_the_table_of_captions_has_each_seed(filtered):
    way = {'captions': 10, 'false': 40.0, 'score': 2.0}
    results = [
        {'seed': seed, 'auc': 0.9 + 0.02 * seed, 'ways': {'web': {**way, 'score': 2.0 + seed}}} for seed in (0, 1)
    ]
    lines = filtered.describe(results, 'caption/CIDEr-D').splitlines()
    assert 'Area under the ROC curve of the filter: 0.9100 (0.9000, 0.9200)' in lines
    assert lines[-1] == '| as they came | 10 (10, 10) | 40.0 (40.0, 40.0) | 2.5000 (2.0000, 3.0000) |'


# --- projects/compared_runs -------------------------------------------------------------------------------------------


@pytest.fixture
def compared(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(ROOT)  # where the paths in plans are
    return importlib.import_module('projects.compared_runs.compare')


def plan_of(compared, folder, **parts):
    parts = {'title': 'Ways', 'metrics': {'caption/CIDEr-D': 'CIDEr-D'}, **parts}
    (folder / 'plan.py').write_text(''.join(f'{key} = {value!r}\n' for key, value in parts.items()))
    return compared.read_plan(folder / 'plan.py')


def test_ways_differ_by_what_their_plan_says(compared, tmp_path, monkeypatch):
    options = {'model.cross_attention': True, 'load_from': 'seed{seed}/a.pth'}
    ways = {'plain': {'config': GIT}, 'other': {'config': GIT, 'options': options, 'without': ['model.heads.caption']}}
    plan, seen = plan_of(compared, tmp_path, ways=ways), []

    def train_and_test(cfg, folder, seed):
        model = cfg.model
        seen.append((model.get('cross_attention', False), cfg.load_from, len(model.heads), folder.as_posix()))
        return {'caption/CIDEr-D': seed + len(model.heads)}

    monkeypatch.setattr(compared, 'train_and_test', train_and_test)
    results = compared.run(plan, [0, 3], Path('work'))
    assert seen == [
        (False, None, 1, 'work/plain/seed0'),
        (True, 'seed0/a.pth', 0, 'work/other/seed0'),
        (False, None, 1, 'work/plain/seed3'),
        (True, 'seed3/a.pth', 0, 'work/other/seed3'),
    ]
    assert results == {'plain': {'caption/CIDEr-D': [1.0, 4.0]}, 'other': {'caption/CIDEr-D': [0.0, 3.0]}}
    table = compared.describe(plan, results, [0, 3])
    assert table.startswith('Ways; seeds 0, 3, mean and each') and '| plain | 2.500 (1.000, 4.000) |' in table
    panels = compared.panels_of(plan, results)
    assert panels == {'CIDEr-D': {'plain': [1.0, 4.0], 'other': [0.0, 3.0]}}
    compared.write_comparison(tmp_path, table, results, panels, plan.title)
    assert (tmp_path / 'comparison.md').read_text() == table
    assert json.loads((tmp_path / 'comparison.json').read_text()) == results
    assert (tmp_path / 'comparison.png').stat().st_size > 5000


@pytest.mark.parametrize(
    ('parts', 'sentence'),
    [
        ({'ways': {}}, 'has no ways; give title, metrics and ways'),
        ({'ways': {'a': {'options': {}}}}, "way 'a' of .* has no config; name one"),
        ({'ways': {'a': {'config': 'x.py', 'option': {}}}}, "way 'a' of .* has 'option'; it takes config, options"),
    ],
)
def test_plans_that_say_too_little(compared, tmp_path, parts, sentence):
    with pytest.raises(UsageError, match=sentence):
        plan_of(compared, tmp_path, **parts)


def test_ways_of_one_folder_are_refused(compared, tmp_path):
    ways = {'with ITC': {'config': GIT}, 'with-ITC': {'config': GIT}}
    with pytest.raises(UsageError, match="ways 'with ITC' and 'with-ITC' of .* have one folder, with_ITC; rename one"):
        plan_of(compared, tmp_path, ways=ways)


def test_a_whole_section_can_be_left_out(compared):
    assert 'param_scheduler' in compared.make_config({'config': GIT}, 0)
    cfg = compared.make_config({'config': GIT, 'without': ['param_scheduler', 'model.heads.caption.tied']}, 0)
    assert 'param_scheduler' not in cfg and 'tied' not in cfg.model.heads.caption and 'heads' in cfg.model


def test_what_is_not_in_a_config_cannot_be_left_out(compared):
    for key in ('model.heads.vqa', 'modle.heads', 'vqa'):
        with pytest.raises(UsageError, match=rf'has no {re.escape(key)}, which is to be left out'):
            compared.make_config({'config': GIT, 'without': [key]}, 0)


@pytest.mark.parametrize('key', ['test_cfg', 'model.heads', 'model.heads.caption'])
def test_keys_of_any_depth_are_left_out(compared, key):
    cfg, whole = compared.make_config({'config': GIT, 'without': [key]}, 0), load_config(GIT)
    *folders, last = key.split('.')
    for folder in folders:
        cfg, whole = cfg[folder], whole[folder]
    assert set(whole) - set(cfg) == {last}


@pytest.mark.parametrize('name', ['git_access', 'blip_losses'])
def test_the_plans_here_name_configs_and_scores(compared, name):
    plan = compared.read_plan(ROOT / f'projects/compared_runs/configs/{name}.py')
    configs = [compared.make_config(way, 0) for way in plan.ways.values()]
    assert len({cfg.pretty_text for cfg in configs}) == len(configs) >= 3
    assert all(cfg.val_evaluator.type == 'florence_mm.CaptionScores' for cfg in configs)
