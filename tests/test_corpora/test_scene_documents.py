import json

import numpy as np
import pytest

from florence_mm.corpora.scene_captions import make_captions
from florence_mm.corpora.scene_documents import DocumentOptions, write_scene_documents
from florence_mm.corpora.scene_facts import read_scenes
from florence_mm.formats.documents import parse_document
from florence_mm.language.prompts import get_class_names


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    """Annotations of eight training and five test scenes of one digit, by hand."""
    folder = tmp_path_factory.mktemp('scenes')
    (folder / 'annotations').mkdir()
    categories = [{'id': label, 'name': name} for label, name in enumerate(get_class_names('digits'))]
    for split, count in (('train', 8), ('test', 5)):
        content = {'images': [], 'annotations': [], 'categories': categories}
        for number in range(count):
            file = {'id': number, 'file_name': f'{number:06}.png', 'width': 64, 'height': 64}
            digit = {'id': number, 'image_id': number, 'category_id': number, 'bbox': [4.0, 10.0, 20.0, 30.0]}
            content['images'].append(file)
            content['annotations'].append({**digit, 'area': 600.0, 'colour': [250, 60, 60], 'iscrowd': 0})
        (folder / f'annotations/{split}.json').write_text(json.dumps(content))
    return folder


def read(path):
    return [parse_document(json.loads(line)) for line in path.read_text().splitlines()]


def test_each_picture_is_followed_by_a_true_caption_of_its_own(scenes, tmp_path):
    assert write_scene_documents(scenes, tmp_path, DocumentOptions(pictures=3, rounds=2)) == (4, 1)
    drawn = {scene.file_name: scene for scene in read_scenes(scenes / 'annotations/train.json')}
    seen = []
    for parts, images in read(tmp_path / 'train.jsonl'):
        assert parts[::2] == [None] * 3 and len(set(images)) == 3
        for image, caption in zip(images, parts[1::2], strict=True):
            true = {text for seed in range(50) for text in make_captions(np.random.default_rng(seed), drawn[image])}
            assert caption in true
            seen.append((image, caption))
    assert len(set(seen)) == len(seen) == 12  # each time another caption
    before = (tmp_path / 'train.jsonl').read_bytes()
    write_scene_documents(scenes, tmp_path, DocumentOptions(pictures=3, rounds=2))
    assert (tmp_path / 'train.jsonl').read_bytes() == before
    write_scene_documents(scenes, tmp_path, DocumentOptions(pictures=3, rounds=2, seed=1))
    assert (tmp_path / 'train.jsonl').read_bytes() != before


def test_texts_describe_one_scene_once_or_several_times(scenes, tmp_path):
    write_scene_documents(scenes, tmp_path, DocumentOptions(pictures=3))
    drawn = read_scenes(scenes / 'annotations/train.json')
    rows = [json.loads(line) for line in (tmp_path / 'texts.jsonl').read_text().splitlines()]
    assert [row['image'] for row in rows] == [scene.file_name for scene in drawn]
    for row, scene in zip(rows, drawn, strict=True):
        true = {text for seed in range(50) for text in make_captions(np.random.default_rng(seed), scene)}
        texts = [text.split('. ') for text in row['texts']]
        assert {len(captions) for captions in texts} == {1, 2, 3}
        for captions in texts:
            assert len(set(captions)) == len(captions)
            assert captions[-1] in true
            # the full stop of a caption that has one is that between captions
            assert all(caption in true or f'{caption}.' in true for caption in captions[:-1])


def test_options_out_of_range_and_missing_scenes_are_refused(scenes, tmp_path):
    with pytest.raises(ValueError, match='at least 2 pictures, 1 to 5 rounds and a seed from 0'):
        write_scene_documents(scenes, tmp_path, DocumentOptions(pictures=1))
    with pytest.raises(FileNotFoundError, match='write scenes with tools/dataset_converters/prepare_scenes.py'):
        write_scene_documents(tmp_path, tmp_path)
