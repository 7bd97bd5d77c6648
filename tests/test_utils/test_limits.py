import pytest

from florence_mm.utils.limits import check_limit, limit_of


@pytest.mark.parametrize('value', [-1, -0.5, 1.5, float('nan'), float('inf'), -float('inf'), '3', None, True, [1]])
def test_what_is_no_limit(value):
    with pytest.raises(ValueError, match=r'^skip=.* must be a number of rows, or a fraction from 0 to below 1$'):
        check_limit(value, 'skip', 'rows')


def test_limits_of_29_items():
    for value, limit in [(0, 0), (0.0, 0), (3, 3), (3.0, 3), (0.1, 2), (0.99, 28), (10**400, 10**400)]:
        check_limit(value, 'skip', 'rows')
        assert limit_of(value, 29) == limit
