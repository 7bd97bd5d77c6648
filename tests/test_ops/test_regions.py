import pytest
import torch
from torch.nn import functional as F

from florence_mm.ops.regions import crop_regions, region_means


@pytest.fixture
def image():
    return torch.rand(3, 12, 20, generator=torch.Generator().manual_seed(0))


def test_a_crop_that_needs_no_resizing_is_the_picture(image):
    boxes = torch.tensor([[3.0, 2.0, 11.0, 10.0], [0.0, 0.0, 8.0, 8.0]])
    crops, inside = crop_regions(image, boxes, (8, 8))
    torch.testing.assert_close(crops[0], image[:, 2:10, 3:11])
    torch.testing.assert_close(crops[1], image[:, :8, :8])
    assert (inside == 1).all()
    # fractions go outwards: 3.4 to 10.2 are the pixels 3 to 10
    crops, _ = crop_regions(image, torch.tensor([[3.4, 2.5, 10.2, 9.3]]), (8, 8))
    torch.testing.assert_close(crops[0], image[:, 2:10, 3:11])


def test_context_and_squares_around_the_same_centre(image):
    box = torch.tensor([[8.0, 4.0, 12.0, 8.0]])
    crops, _ = crop_regions(image, box, (8, 8), context=2.0)
    torch.testing.assert_close(crops[0], image[:, 2:10, 6:14])
    wide = torch.tensor([[6.0, 5.0, 14.0, 7.0]])
    square, _ = crop_regions(image, wide, (8, 8))
    torch.testing.assert_close(square[0], image[:, 2:10, 6:14])
    stretched, _ = crop_regions(image, wide, (2, 8), square=False)
    torch.testing.assert_close(stretched[0], image[:, 5:7, 6:14])


def test_outside_the_picture_is_zero_and_marked(image):
    crops, inside = crop_regions(image, torch.tensor([[16.0, -4.0, 24.0, 4.0], [30.0, 30.0, 34.0, 34.0]]), (8, 8))
    expected = torch.zeros(3, 8, 8)
    expected[:, 4:, :4] = image[:, :4, 16:]
    torch.testing.assert_close(crops[0], expected)
    assert inside[0, 0].tolist() == [[0.0] * 8] * 4 + [[1.0] * 4 + [0.0] * 4] * 4
    assert not crops[1].any() and not inside[1].any()


def test_shrinking_averages_and_a_point_is_one_pixel(image):
    stripes = torch.arange(16.0).remainder(2).expand(1, 16, 16)
    crops, _ = crop_regions(stripes, torch.tensor([[0.0, 0.0, 16.0, 16.0]]), (4, 4))
    assert (crops[0, 0, :, 1:3] - 0.5).abs().max() < 0.1  # without antialiasing each would be 0, 1 or a mean of two
    wanted = F.interpolate(image[None], (4, 5), mode='bilinear', antialias=True)[0]
    crops, _ = crop_regions(image, torch.tensor([[0.0, 0.0, 20.0, 12.0]]), (4, 5), square=False)
    torch.testing.assert_close(crops[0], wanted)
    crops, _ = crop_regions(image, torch.tensor([[5.5, 6.5, 5.5, 6.5]]), (2, 2))
    torch.testing.assert_close(crops[0], image[:, 6:7, 5:6].expand(3, 2, 2))


def test_no_boxes(image):
    crops, inside = crop_regions(image, torch.zeros(0, 4), (8, 6))
    assert crops.shape == (0, 3, 8, 6) and inside.shape == (0, 1, 8, 6)
    assert region_means(image, torch.zeros(0, 4), (1.0, 1.0)).shape == (0, 3)


def test_region_means_by_hand():
    maps = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])
    boxes = torch.tensor(
        [
            [0.0, 0.0, 30.0, 20.0],  # all: 3.5
            [10.0, 10.0, 20.0, 20.0],  # the cell of the 5
            [5.0, 0.0, 15.0, 10.0],  # half of 1, half of 2
            [5.0, 5.0, 20.0, 20.0],  # columns 1/3, 2/3; rows 1/3, 2/3: (1 + 2*2 + 2*4 + 4*5) / 9
            [-50.0, -50.0, 10.0, 10.0],  # what is outside does not count: 1
            [25.0, 15.0, 25.0, 15.0],  # a point in the cell of the 6
            [90.0, 90.0, 95.0, 95.0],  # outside: the nearest, 6
        ]
    )
    means = region_means(maps, boxes, (10.0, 10.0))
    torch.testing.assert_close(means[:, 0], torch.tensor([3.5, 5.0, 1.5, 33 / 9, 1.0, 6.0, 6.0]))


def test_region_mean_of_everything_is_the_mean(image):
    whole = torch.tensor([[0.0, 0.0, 20 * 7.3, 12 * 4.1]])
    torch.testing.assert_close(region_means(image, whole, (4.1, 7.3))[0], image.mean((1, 2)))


def test_wrong_shapes_are_named(image):
    with pytest.raises(ValueError, match=r'\(1, 3, 12, 20\) and the boxes \(1, 4\)'):
        crop_regions(image[None], torch.zeros(1, 4), (8, 8))
    with pytest.raises(ValueError, match=r'the map has shape .* the boxes \(4,\)'):
        region_means(image, torch.zeros(4), (1.0, 1.0))
    with pytest.raises(ValueError, match='context is 0'):
        crop_regions(image, torch.zeros(1, 4), (8, 8), context=0)
