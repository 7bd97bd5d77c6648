"""The worked example of a user's own project."""

import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from florence_mm.corpora.digits import write_digits
from florence_mm.registry import DATASETS, MODELS

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'projects/linear_probe/configs/coswin-micro_1xb64-20e_digits.py'


@pytest.fixture
def probe(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    config = Config.fromfile(CONFIG)  # imports the project's parts
    return config, sys.modules['projects.linear_probe.probe']


def test_labels_are_those_of_the_digits(probe, tmp_path):
    config, _ = probe
    write_digits(tmp_path)
    cfg = config.train_dataloader.dataset
    cfg.ann_file = str(tmp_path / 'train.jsonl')
    dataset = DATASETS.build(cfg)
    for index in range(0, 60):
        sample = dataset[index]['data_samples']
        # files are named NUMBER_CLASS.png
        assert config.classes[int(sample.gt_label)] == Path(sample.img_path).stem.split('_')[1]


def test_a_text_must_name_one_class(probe):
    transform = probe[1].LabelOfText(['one', 'two'])
    for text, count in (('a handwritten three', 0), ('one or two', 2)):
        with pytest.raises(ValueError, match=f'line 7: .*names {count} of the classes one, two'):
            transform.transform({'text': text, 'source': 'line 7'})


def test_only_the_classifier_learns(probe):
    config, module = probe
    config.model.backbone.init_cfg = None
    model = MODELS.build(config.model).train()
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ['head.fc.weight', 'head.fc.bias']
    # batch statistics by hand: means 1 and 3 of two samples have mean 2 and deviation 1
    (pooled,) = module.NormalizedPooling(1)((torch.tensor([0.0, 2.0, 2.0, 4.0]).view(2, 1, 1, 2),))
    torch.testing.assert_close(pooled, torch.tensor([[-1.0], [1.0]]), atol=1e-5, rtol=0)
