"""Random targets of tasks, for tests of the format."""

from florence_mm.language.regions import Region, Target
from florence_mm.language.tasks import find_task

WORDS = ['dog', 'a', 'red', 'Hund', 'größte', '象', '7', "dog's", 'x<y', '(left)', '<loc>', 'no. 5']


def random_text(rng, longest=4):
    return ' '.join(rng.choice(WORDS) for _ in range(rng.randint(1, longest)))


def random_box(rng):
    (x0, x1), (y0, y1) = (sorted(rng.sample(range(101), 2)) for _ in range(2))
    scale = rng.choice([1.0, 0.1, 0.003])  # some lie in one bin
    return x0 / 100 * scale, y0 / 100 * scale, x1 / 100 * scale, y1 / 100 * scale


def random_polygon(rng, points):
    scale = rng.choice([1.0, 1.0, 0.02])
    return tuple((rng.random() * scale, rng.random() * scale) for _ in range(points))


def random_target(rng, task, most=4):
    """A target that answers a task, with up to ``most`` regions."""
    answers = find_task(task).answers
    if answers == 'text':
        return Target(random_text(rng, 12))
    regions = []
    for _ in range(rng.randint(0, most)):
        text = random_text(rng)
        boxes = tuple(random_box(rng) for _ in range(rng.randint(1, 3)))
        polygons = tuple(random_polygon(rng, rng.randint(3, 9)) for _ in range(rng.randint(1, 3)))
        if answers == 'labelled_shapes':
            answer = rng.choice([{'boxes': boxes}, {'polygons': polygons}])
        else:
            quad = random_polygon(rng, 4)
            answer = {
                'labelled_boxes': {'boxes': boxes},
                'boxes': {'boxes': boxes},
                'labelled_quads': {'quad': quad},
                'polygons': {'polygons': polygons},
            }[answers]
        regions.append(Region(text if answers.startswith('labelled') else '', **answer))
    return Target(regions=tuple(regions))
