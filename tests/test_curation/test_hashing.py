import cv2
import numpy as np
import pytest

from florence_mm.curation.hashing import LEAST_SIDE, perceptual_hash, sampling_hash


def picture(seed, size=(200, 300)):
    """A smooth picture, so that hashes are not decided by noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def bits(first, second):
    return (first ^ second).bit_count()


def test_the_hash_follows_the_definition_of_imagehash():
    # each step as ImageHash's phash has it, by sums instead of its library's transform
    grey = cv2.resize(picture(0), (32, 32), interpolation=cv2.INTER_AREA)[..., 0].copy()
    positions = np.arange(32) + 0.5
    low = np.zeros((8, 8))
    for row in range(8):
        for column in range(8):
            wave = np.outer(np.cos(np.pi * row * positions / 32), np.cos(np.pi * column * positions / 32))
            low[row, column] = 4 * (wave * grey).sum()
    expected = ''.join(str(int(value > np.median(low))) for value in low.ravel())
    assert format(perceptual_hash(grey), '064b') == expected


def test_single_waves_set_the_bits_that_they_are():
    # brightness and one wave downwards: two coefficients above the median of 64, which is 0
    wave = 128 + 100 * np.cos(np.pi * 3 * (np.arange(32) + 0.5) / 32)
    image = np.repeat(np.rint(wave).astype(np.uint8)[:, None], 32, axis=1)
    found = format(perceptual_hash(image), '064b')
    assert found[0] == '1' and found[3 * 8] == '1' and found.count('1') < 8
    assert format(perceptual_hash(np.full((50, 40, 3), 77, np.uint8)), '064b') == '1' + '0' * 63


def test_scaling_and_brightness_change_few_bits_and_another_picture_many():
    image = picture(1)
    own = perceptual_hash(image)
    assert bits(own, perceptual_hash(cv2.resize(image, (150, 100), interpolation=cv2.INTER_AREA))) <= 3
    assert bits(own, perceptual_hash(cv2.imdecode(cv2.imencode('.jpg', image, [1, 50])[1], 1))) <= 3
    assert bits(own, perceptual_hash(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))) == 0
    assert min(bits(own, perceptual_hash(picture(seed))) for seed in range(2, 12)) > 10


@pytest.mark.parametrize('reduction', [cv2.IMREAD_REDUCED_GRAYSCALE_2, cv2.IMREAD_REDUCED_GRAYSCALE_4])
def test_reduced_decoding_changes_at_most_four_bits(reduction):
    for seed in range(20):
        data = cv2.imencode('.jpg', picture(seed, (4 * LEAST_SIDE, 330)), [1, 90])[1]
        whole = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
        assert bits(perceptual_hash(whole), perceptual_hash(cv2.imdecode(data, reduction))) <= 4


def test_sampling_hashes_are_fixed_and_spread():
    # of 16 bytes 00 .. 00 00 .. 01, by b2sum's library
    assert sampling_hash(0, 1) == 13702416456061206402
    hashes = np.array([sampling_hash(0, number) for number in range(2000)], dtype=np.uint64)
    assert len(set(hashes.tolist())) == 2000 and 900 < (hashes < 2**63).sum() < 1100
    assert sampling_hash(1, 1) != sampling_hash(0, 1)
