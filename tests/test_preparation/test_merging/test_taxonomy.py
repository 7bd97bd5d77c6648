"""Class names of several sources as one list."""

import pytest

from florence_mm.errors import DataError
from florence_mm.preparation.merging.taxonomy import Taxonomy, class_key


def test_names_differ_by_case_and_underscores_only():
    assert class_key('Fire_Hydrant ') == class_key('fire hydrant') == 'fire hydrant'
    assert class_key('bat_(animal)') != class_key('bat_(baseball)')


def test_a_synonym_for_one_source_goes_before_a_general_one():
    taxonomy = Taxonomy(
        [('coco', {1: 'mouse', 2: 'cat'}), ('oi', {'/m/a': 'Mouse', '/m/b': 'Computer mouse'})],
        {'computer mouse': ['coco:mouse'], 'mouse (animal)': ['mouse']},
    )
    assert taxonomy.classes == ['cat', 'computer mouse', 'mouse (animal)']
    assert taxonomy.class_of == [{1: 2, 2: 1}, {'/m/a': 3, '/m/b': 2}]
    assert taxonomy.members == [{2: {1}, 1: {2}}, {3: {'/m/a'}, 2: {'/m/b'}}]
    assert taxonomy.unused == []


def test_a_colon_after_no_source_is_part_of_the_name():
    taxonomy = Taxonomy([('a', {1: 'ratio 4:3'})], {'ratio': ['ratio 4:3']})
    assert taxonomy.classes == ['ratio']


@pytest.mark.parametrize(
    ('synonyms', 'message'),
    [
        ({'sofa': ['couch'], 'seat': ['Couch']}, "'Couch' stands for both 'sofa' and 'seat'"),
        ({'sofa': ['couch'], 'seat': ['sofa']}, "'sofa' has other names but is itself another name of 'seat'"),
        ({' ': ['couch']}, "class name ' ' is empty"),
    ],
)
def test_contradictory_synonyms(synonyms, message):
    with pytest.raises(DataError, match=message):
        Taxonomy([('a', {1: 'couch'})], synonyms)


def test_a_category_without_a_name():
    with pytest.raises(DataError, match="a: the class name '_' is empty"):
        Taxonomy([('a', {1: '_'})])
