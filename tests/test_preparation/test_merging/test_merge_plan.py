"""Plans of a merge, read from YAML and JSON."""

import pytest

from florence_mm.errors import DataError
from florence_mm.preparation.merging.sources import read_plan


def test_the_plan_is_read_from_yaml_and_json(tmp_path):
    (tmp_path / 'plan.yml').write_text(
        'sources: [{name: a, format: coco, ann_file: x.json}]\nsynonyms: {sofa: [couch]}\n'
    )
    (tmp_path / 'words.json').write_text('{"tv": ["television"]}')
    plan = read_plan(tmp_path / 'plan.yml')
    assert (plan.sources[0].images, plan.synonyms) == ('a', {'sofa': ['couch']})
    assert read_plan(tmp_path / 'plan.yml', tmp_path / 'words.json').synonyms == {'tv': ['television']}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('sources: [{name: a, format: voc, ann_file: x}]', "format 'voc' is none of coco, lvis, openimages"),
        ('sources: [{name: a, format: coco, annfile: x}]', "unknown key 'annfile'"),
        ('sources: [{name: a, format: coco}]', '`ann_file` is missing'),
        ('sources: []', '`sources` must be a list'),
        ('sources: [{name: a+b, format: coco, ann_file: x}]', r"name 'a\+b' has \+ or :"),
        ('sources: [{name: a, format: openimages, ann_file: x}]', '`class_descriptions` is missing'),
        ('sources: [{name: a, format: coco, ann_file: x, image_sizes: y}]', 'belongs to the format openimages'),
        ('sources: [{name: a, format: coco, ann_file: x}]\nexclude: [{images: b, ann_file: y}]', "from 'b'"),
        ('sources: [{name: a, format: coco, ann_file: x}]\nsynonyms: {sofa: couch}', 'expected a list of names'),
        ('sources: [', 'is neither YAML nor JSON'),
    ],
)
def test_bad_plans(tmp_path, text, message):
    (tmp_path / 'plan.yml').write_text(text)
    with pytest.raises(DataError, match=f'plan.yml.*{message}'):
        read_plan(tmp_path / 'plan.yml')
