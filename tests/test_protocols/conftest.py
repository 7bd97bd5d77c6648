"""What several tests of the families need."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_families import write_run

from florence_mm.protocols import family_runs
from florence_mm.protocols.family_configs import last_checkpoint
from florence_mm.protocols.family_data import Files


@pytest.fixture
def own(tmp_path):
    pictures, regions = tmp_path / 'mine', tmp_path / 'regions'
    pictures.mkdir()
    regions.mkdir()
    captions, questions = tmp_path / 'captions.jsonl', tmp_path / 'questions.jsonl'
    captions.write_text('{"image": "a.png", "texts": ["a dog", "one dog"]}\n{"image": "b.png", "text": "a cat"}\n')
    questions.write_text(
        '{"image": "a.png", "question": "what is it?", "answer": "dog"}\n'
        '{"image": "b.png", "question": "how many?", "answers": ["two", "three", "two"]}\n'
    )
    return SimpleNamespace(
        captions=Files(captions, pictures), questions=Files(questions, pictures), pictures=pictures, folder=tmp_path,
        regions=regions,
    )  # fmt: skip


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Processes of a test and a training that only note what they are asked for."""
    seen = []

    def in_process(work, cfg, threads, *args):
        seen.append((work.__name__.strip('_'), cfg, *args))
        if work is family_runs._train:
            write_run(Path(args[0]), last_checkpoint(cfg))
            return None
        score = {'caption/CIDEr-D': 3.0, 'vqa/accuracy': 0.75, 'reranked/i2t_R@1': 0.5}
        return {**score, 'process/parameters': 7.0, 'process/trained': 4.0, 'process/memory': 1024.0}

    monkeypatch.setattr(family_runs, 'in_own_process', in_process)
    monkeypatch.setattr(family_runs, 'published_folders', lambda: [tmp_path / 'published'])
    return seen
