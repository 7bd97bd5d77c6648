import json

import numpy as np
import pytest

from florence_mm.corpora.exchanged_captions import CLEAN, WEB, Exchanged, write_exchanged_captions
from florence_mm.corpora.scene_captions import make_captions
from florence_mm.corpora.scene_facts import read_scenes
from florence_mm.language.prompts import get_class_names

NAMES = get_class_names('digits')


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    """Annotations of sixty scenes of two digits, by hand, of two kinds."""
    folder = tmp_path_factory.mktemp('scenes')
    images, annotations = [], []
    for number in range(60):
        images.append({'id': number, 'file_name': f'{number:06}.png', 'width': 64, 'height': 64})
        for place, label in enumerate((number % 2, 7)):
            box = [4.0 + 30 * place, 10.0, 20.0, 30.0]
            annotations.append(
                {'id': len(annotations), 'image_id': number, 'category_id': label, 'bbox': box, 'area': 600.0}
                | {'colour': [250, 60, 60], 'iscrowd': 0}
            )
    categories = [{'id': label, 'name': name} for label, name in enumerate(NAMES)]
    (folder / 'annotations').mkdir()
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    (folder / 'annotations/train.json').write_text(json.dumps(content))
    return folder


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def true_captions(scenes):
    """For each picture all captions that are true of it."""
    true = {}
    for scene in read_scenes(scenes / 'annotations/train.json'):
        true[scene.file_name] = {
            text for seed in range(20) for text in make_captions(np.random.default_rng(seed), scene)
        }
    return true


def test_as_many_captions_are_exchanged_as_asked_and_none_is_true(scenes, tmp_path):
    assert write_exchanged_captions(scenes, tmp_path) == (45, 18)
    web = rows_of(tmp_path / WEB)
    assert len(web) == 45 and [row['exchanged'] for row in web].count(True) == 18
    true = true_captions(scenes)
    assert all((row['text'] in true[row['image']]) != row['exchanged'] for row in web)


def test_clean_pictures_are_others_and_their_captions_true(scenes, tmp_path):
    write_exchanged_captions(scenes, tmp_path, Exchanged(clean=0.5))
    clean, web = rows_of(tmp_path / CLEAN), rows_of(tmp_path / WEB)
    assert len(clean) == 30 and not {row['image'] for row in clean} & {row['image'] for row in web}
    true = true_captions(scenes)
    assert all(len(row['texts']) == 5 and set(row['texts']) <= true[row['image']] for row in clean)


def test_a_seed_gives_the_same_files_and_another_seed_others(scenes, tmp_path):
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        write_exchanged_captions(scenes, tmp_path / name, Exchanged(seed=seed))
    a, b, c = ((tmp_path / name / WEB).read_bytes() for name in 'abc')
    assert a == b != c


@pytest.mark.parametrize('options', [Exchanged(fraction=1.1), Exchanged(clean=1.0), Exchanged(seed=-1)])
def test_options_out_of_range_are_refused(scenes, tmp_path, options):
    with pytest.raises(ValueError, match='must have a fraction from 0 to 1'):
        write_exchanged_captions(scenes, tmp_path, options)


def test_missing_scenes_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no annotations .*train\.json; write scenes with'):
        write_exchanged_captions(tmp_path, tmp_path / 'out')
