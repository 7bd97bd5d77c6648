"""The order in which texts in a picture are read."""

from collections.abc import Sequence


def reading_order(boxes: Sequence[Sequence[float]], names: Sequence[str] = ()) -> list[int]:
    """Order boxes by lines from the top, each from the left.

    The highest centre begins a line, to which all belong whose centre is above the bottom edge of that first box.

    Args:
        boxes: ``x0, y0, x1, y1`` of each, in any unit, y down.
        names: of each what orders equal boxes; none: they stay as they are given.

    Returns:
        list[int]: indices of the boxes.

    >>> reading_order([(20, 3, 24, 7), (0, 10, 4, 14), (0, 0, 4, 4)])
    [2, 0, 1]
    """
    names = names or [''] * len(boxes)
    left = sorted(range(len(boxes)), key=lambda i: (boxes[i][1] + boxes[i][3], tuple(boxes[i]), names[i]))
    ordered: list[int] = []
    while left:
        bottom = 2 * boxes[left[0]][3]
        line = [i for i in left if i == left[0] or boxes[i][1] + boxes[i][3] < bottom]
        left = left[len(line) :]  # a line is the beginning of what is left, as that is sorted by centres
        ordered += sorted(line, key=lambda i: (tuple(boxes[i]), names[i]))
    return ordered
