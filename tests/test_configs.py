"""Every config: builds on the meta device under a foreign scope, has the stated size, takes two smoke steps.

None names a member of a list by its position.
"""

import ast
import re
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import DefaultScope

from florence_mm.config.check import check_config
from florence_mm.engine.parallelize import check_options, parallelize
from florence_mm.registry import MODELS
from florence_mm.smoke.run import run_smoke

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / 'configs').rglob('*.py'))
#: Configs of models; those of curation have none.
CONFIGS = [path.relative_to(ROOT).as_posix() for path in FILES if not {'_base_', 'curation'} & set(path.parts)]
PROJECTS = sorted((ROOT / 'projects').glob('*/configs/*.py'))
# of --cfg-options: a key with a number
OPTION = re.compile(r'\b[a-z_]\w*(?:\.\w+)*\.-?\d+(?:\.[a-z_]\w*)*=')


def metafile_models():
    """Config path -> its entries, over all metafiles of the model index; more than one where weights differ."""
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    entries = {}
    for file in index['Import']:
        for model in yaml.safe_load((ROOT / file).read_text())['Models']:
            entries.setdefault(model['Config'], []).append(model)
    return entries


def test_every_config_has_a_metafile_entry_and_every_entry_a_config():
    models = metafile_models()
    assert set(models) == set(CONFIGS)
    for path, entries in models.items():
        names = [entry['Name'] for entry in entries]
        if len(names) == 1 and 'Weights Source' not in entries[0]['Metadata']:
            assert names == [Path(path).stem]
    names = [entry['Name'] for entries in models.values() for entry in entries]
    assert len(set(names)) == len(names)


def without_files(node):
    """A model's config without files that are no part of the repository.

    Sizes do not hang on them, apart from a vocabulary of answers, which for the embedded questions has 27; heads that
    write answers have no size of it.
    """
    if isinstance(node, (list, tuple)):
        return [without_files(item) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get('answers'), str):
        assert node['answers'] == 'data/large_digit_questions/answers.txt' or 'WrittenAnswer' in node['type']
        node = {**node, 'answers': [f'answer {number}' for number in range(27)]}
    return {key: None if key == 'pretrained' else without_files(value) for key, value in node.items()}


@pytest.mark.parametrize('path', CONFIGS)
@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain'])
def test_config_builds_under_a_foreign_scope_with_the_stated_size(path, scope):
    cfg = Config.fromfile(ROOT / path)
    check_config(cfg)
    with DefaultScope.overwrite_default_scope(scope), torch.device('meta'):
        model = MODELS.build(without_files(cfg.model))
    if options := cfg.get('parallelize'):
        check_options(options)
        assert set(options['blocks']) <= {type(module).__name__ for module in model.modules()}
    parameters = sum(p.numel() for p in model.parameters())
    assert {entry['Metadata']['Parameters'] for entry in metafile_models()[path]} == {parameters}


#: A preset of configs/_base_/parallel for each kind of model with a CoSwin-H, and how much of it is in its blocks.
PRESETS = [
    ('unicl/unicl_coswin-h_512xb48-1m_fld900m.py', 'fsdp2.py', 0.91),
    ('video_retrieval/unicl_video-coswin-h_16xb8-20e_msrvtt-1ka.py', 'fsdp2.py', 0.91),
    ('video_coswin/video_coswin-h_64xb1-30e_kinetics400-384.py', 'fsdp2_video.py', 0.96),
    ('meter/meter_coswin-h_roberta_128xb32-43e_coco-vg-cc-sbu.py', 'fsdp2_meter.py', 0.76),
    ('meter/meter_coswin-h_roberta_64xb8-10e_vqav2-576.py', 'fsdp2_meter.py', 0.78),
    ('meter/meter_coswin-h_roberta_rerank_32xb16-10e_coco.py', 'fsdp2_meter.py', 0.74),
    ('dynamic_head/atss_coswin-h_fpn_dyhead_128xb1-12e_flod9m.py', 'fsdp2_detector.py', 0.94),
    ('dynamic_head/zero-shot_coswin-h_fpn_dyhead_128xb1-12e_flod9m.py', 'fsdp2_detector.py', 0.68),
]


@pytest.mark.parametrize(('path', 'preset', 'share'), PRESETS)
def test_a_preset_names_blocks_that_the_large_models_have(path, preset, share, tmp_path):
    bases = [str(ROOT / 'configs' / path), str(ROOT / 'configs/_base_/parallel' / preset)]
    own = tmp_path / 'own.py'
    own.write_text(f'_base_ = {bases[: 2 if "parallelize" not in Config.fromfile(bases[0]) else 1]}')
    cfg = Config.fromfile(own)
    check_config(cfg)
    assert cfg.parallelize.shard
    with torch.device('meta'):
        model = MODELS.build(without_files(cfg.model))
    check_options(cfg.parallelize)
    parallelize(model, cfg.parallelize.blocks)  # names that the model lacks are an error
    found = [module for module in model.modules() if type(module).__name__ in cfg.parallelize.blocks]
    inside = sum(value.numel() for module in found for value in module.parameters())
    assert inside / sum(value.numel() for value in model.parameters()) == pytest.approx(share, abs=0.01)


@pytest.fixture
def nothing_for_people(monkeypatch):
    """The layout of the logged config and the drawn curves, which other tests look at, are left out."""
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **options: (text, True))
    monkeypatch.setattr('florence_mm.engine.hooks.run_summary.draw_curves', lambda *args, **titles: None)


@pytest.mark.parametrize('path', CONFIGS)
def test_two_smoke_steps(path, tmp_path, nothing_for_people):
    cfg = Config.fromfile(ROOT / path)
    metrics = run_smoke(cfg, tmp_path)
    # ranks begin at 1, CIDEr-D ends at 10; the four generated questions of a test split have no answers
    limits = {'MdR': (1, float('inf')), 'MnR': (1, float('inf')), 'CIDEr-D': (0, 10), 'num_without_answers': (4, 4)}
    limits |= dict.fromkeys(('AP_s', 'AP_m', 'AP_l'), (-1, 1))  # COCO's -1 where no object is of the size
    limits |= dict.fromkeys(('accuracy/top1', 'accuracy/top5'), (0, 100))  # mmpretrain's are in per cent
    for key, value in metrics.items():
        low, high = next((limits[end] for end in limits if key.endswith(end)), (0, 1))
        assert low <= value <= high, key
    assert metrics or not cfg.get('val_dataloader') and not cfg.get('test_dataloader')


def is_number(node):
    """Whether an expression is a whole number, or a slice with one."""
    if isinstance(node, ast.Slice):
        return any(is_number(part) for part in (node.lower, node.upper, node.step))
    if isinstance(node, ast.UnaryOp):
        return is_number(node.operand)
    return isinstance(node, ast.Constant) and isinstance(node.value, int)


def names_position(node):
    if isinstance(node, ast.Subscript):
        return is_number(node.slice)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in ('insert', 'pop') and bool(node.args) and is_number(node.args[0])
    if isinstance(node, ast.Dict):
        keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
        return any(re.search(r'(^|\.)-?\d+(\.|$)', key) for key in keys if isinstance(key, str))
    return False


def positions(text):
    """Lines of a config that name a position."""
    return sorted({node.lineno for node in ast.walk(ast.parse(text)) if names_position(node)})


@pytest.mark.parametrize('path', [*FILES, *PROJECTS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_configs_name_no_position(path):
    # {{_base_.name}} is a set in a set for Python, which is as good here
    assert positions(path.read_text()) == []


def test_commands_name_no_position():
    pages = [
        ROOT / 'README.md',
        *(path for folder in ('docs', 'configs', 'projects') for path in (ROOT / folder).rglob('*.md')),
    ]
    found = {page.name: OPTION.findall(page.read_text()) for page in (*pages, *FILES, *PROJECTS)}
    assert {name: keys for name, keys in found.items() if keys} == {}


@pytest.mark.parametrize(
    'line',
    [
        'train_pipeline[1].update(scale=384)',
        "tta_pipeline[-1]['transforms'] = []",
        'train_pipeline = _base_.train_pipeline[2:]',
        'train_pipeline.insert(3, dict())',
        'train_pipeline.pop(-1)',
        "smoke = dict(train_dataloader=dict(dataset=dict(pipeline={'1': dict(clip_len=4)})))",
        "smoke = {'train_dataloader.dataset.pipeline.2.scale': 8}",
    ],
)
def test_what_is_a_position(line):
    assert positions(f'a = 1\n{line}\n') == [2]


def test_what_is_none():
    text = "a = b['c'].pop('d')\nd = {'layer4': 1, 'a.b': 2, 3: 4}\ne = {{_base_.model}}\nf = scales[i]\ng.insert(h, 1)"
    assert positions(text) == []
    assert OPTION.findall('--cfg-options param_scheduler.1.end=5 a.b.-1=2') == ['param_scheduler.1.end=', 'a.b.-1=']
    assert OPTION.findall('--cfg-options model.layer4.a=1 x.Resize.scale=8 torch==2.13.0 lr=1.5') == []
