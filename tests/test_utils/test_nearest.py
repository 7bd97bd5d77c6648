import pytest

from florence_mm.utils.nearest import did_you_mean, edit_distance, nearest


def test_slips():
    pairs = [('model', 'model'), ('modle', 'model'), ('model', 'mode'), ('mdel', 'model'), ('modus', 'model')]
    assert [edit_distance(a, b) for a, b in pairs] == [0, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ('name', 'found'),
    [
        ('widht', 'width'),
        ('WIDTH', 'width'),
        ('BachSize', 'BatchSize'),
        ('dgo', 'dog'),  # one slip, though no more than two letters in three match
        ('weight_decy', 'weight_decay'),
        ('wght_decay', 'weight_decay'),  # two slips in a long name
        ('batch_norm', None),  # six letters in ten are those of batch_size, and it is another word
        ('height', None),
        ('', None),
    ],
)
def test_nearest(name, found):
    assert nearest(name, ['width', 'BatchSize', 'batch_size', 'dog', 'weight_decay']) == found


def test_end_of_a_sentence():
    assert did_you_mean('widht', ['width', 'depth']) == "; did you mean 'width'?"
    assert did_you_mean('colour', ['width', 'depth']) == ''
    assert did_you_mean('colour', ['width', 'depth'], '; it has width, depth') == '; it has width, depth'
    assert did_you_mean('colour', []) == ''
