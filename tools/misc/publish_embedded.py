"""Train the models of the embedded tasks and publish them, so that each can be had by its name without a network.

    python tools/misc/publish_embedded.py [NAME ...] [--list] [--work-dir DIR]

``make zoo`` runs it. Each model is trained by the commands of its page, tested, and its weights are written to
``$FLORENCE_MM_HOME/models/NAME-HASH.safetensors``, which ``get_model`` reads. A published model is not trained again; a
stopped run goes on with its last checkpoint when the command is given again. Exit status: 0; 1 if a model does not
reach its score, and is then not published; 2 with one sentence if a command fails.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from embedded_recipes import DATA, DIGITS, QUICKSTART, RECIPES, Recipe

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.errors import UsageError, one_sentence_errors
from florence_mm.models.checkpoints.publishing import find_published, publish
from florence_mm.utils.files import write_atomic
from florence_mm.utils.home import published_folders
from florence_mm.utils.nearest import did_you_mean
from florence_mm.utils.progress import format_seconds

ROOT = Path(__file__).resolve().parents[2]


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='*', metavar='NAME', help='models to publish (default: all)')
    parser.add_argument('--list', action='store_true', help='only list the models, and what is published')
    parser.add_argument(
        '--work-dir', default='work_dirs/zoo', type=Path, help='folder of data and runs (default: work_dirs/zoo)'
    )
    return parser.parse_args()


def chosen(names: list[str]) -> list[Recipe]:
    """Return the recipes of the names and those that they begin with, in order; no names: all."""
    known = {recipe.name: recipe for recipe in RECIPES}
    wanted = set(names or known)
    for name in names:
        if name not in known:
            raise UsageError(f'{name} is none of the embedded models{did_you_mean(name, known)}; see --list')
    for recipe in reversed(RECIPES):
        if recipe.name in wanted and published(recipe.name) is None:
            wanted |= set(recipe.begins_with)
    return [recipe for recipe in RECIPES if recipe.name in wanted]


def published(name: str) -> Path | None:
    """Return the published file of a model, or None."""
    return find_published(name, published_folders())


def run(command: list[str], folder: Path, failing: tuple[int, ...] = ()) -> None:
    """Run a command of the checkout in a folder; its statuses ``failing`` are judged by the score afterwards."""
    paths = [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = {**os.environ, 'PYTHON': sys.executable, 'PYTHONPATH': os.pathsep.join(paths)}
    status = subprocess.run(command, cwd=folder, env=environment).returncode
    if status and status not in failing:
        raise UsageError(
            f'{" ".join(command)} ended with status {status} in {folder}; its own words are above, and the same '
            'command goes on from the last checkpoint'
        )


def make_data(recipe: Recipe, folder: Path) -> None:
    """Write the data sets of a recipe that are not complete."""
    for name in recipe.data:
        done = folder / f'data/.{name}_is_complete'
        if done.exists():
            continue
        for command in DATA[name]:
            tool, *options = command.split()
            run([sys.executable, str(ROOT / tool), *options], folder)
        write_atomic(done, '')


def provide(name: str, folder: Path) -> None:
    """Put a published model where the next one's config looks for it."""
    (recipe,) = (recipe for recipe in RECIPES if recipe.name == name)
    target = folder / recipe.checkpoint
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # a link to a file that was deleted
        target.symlink_to(published(name).resolve())


def train(recipe: Recipe, folder: Path) -> float | None:
    """Train a model and return its test score; minus infinity if it is not above the score that it must exceed."""
    checkpoint = folder / recipe.checkpoint
    runs, out = checkpoint.parent, str(checkpoint.parent.relative_to(folder))
    if recipe.name in (QUICKSTART, DIGITS):
        if not (runs / 'metrics.json').exists() or not checkpoint.exists():
            shutil.rmtree(runs, ignore_errors=True)
            tool = [sys.executable, str(ROOT / 'tools/quickstart.py'), '--work-dir', out]
            run(tool + ['--config', str(recipe.config)] * (recipe.name == DIGITS), folder, failing=(1,))
        return float(json.loads((runs / 'metrics.json').read_text())[recipe.score])
    config = str(recipe.config)
    if not checkpoint.exists():
        options = ['--seed', '0', '--work-dir', out, '--resume']
        start = [sys.executable, str(ROOT / 'tools/train.py'), config]
        if recipe.processes > 1:
            start = ['bash', str(ROOT / 'tools/dist_train.sh'), config, str(recipe.processes)]
        run([*start, *options], folder)
    if recipe.score is None:
        return None
    file = runs / ('test_metrics.json' if recipe.tested_apart else 'metrics.json')
    if not file.exists():  # of a run without validation, or one that was stopped before it
        test = ['bash', str(ROOT / 'tools/dist_test.sh'), config, recipe.checkpoint, str(recipe.processes)]
        run([*test, '--work-dir', out], folder)
        file = runs / 'test_metrics.json'
    metrics = json.loads(file.read_text())['metrics']
    score = float(metrics[recipe.score])
    if recipe.above is not None and score <= metrics[recipe.above]:
        print(
            f'{recipe.name}: {recipe.score} is not above {recipe.above}, {metrics[recipe.above]:.4f}', file=sys.stderr
        )
        return -math.inf
    return score


def publish_one(recipe: Recipe, work_dir: Path) -> bool:
    """Train and publish one model; returns whether its score is high enough."""
    folder = work_dir / recipe.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in recipe.begins_with:
        provide(name, folder)
    make_data(recipe, folder)
    score = train(recipe, folder)
    if score is not None and score < recipe.least:
        print(f'{recipe.name}: {recipe.score} is {score:.4f}, below {recipe.least}; not published', file=sys.stderr)
        return False
    more = {} if score is None else {'score': {recipe.score: round(score, 4)}}
    # the quickstart publishes its own
    target = published_folders()[0] / f'{recipe.name}.safetensors'
    file = published(recipe.name) or publish(folder / recipe.checkpoint, target, more)
    print(f'{recipe.name}: {"no test" if score is None else f"{recipe.score} {score:.4f}"}, published as {file}')
    return True


def show() -> None:
    """Print the models."""
    for recipe in RECIPES:
        file = published(recipe.name)
        state = f'about {format_seconds(recipe.seconds)} on two idle cores' if file is None else str(file)
        print(f'{recipe.name}: {recipe.task}; {state}')


def main() -> int:
    """Publish what is not published."""
    args = parse_args()
    with one_sentence_errors():
        if args.list:
            show()
            return 0
        recipes = [recipe for recipe in chosen(args.names) if published(recipe.name) is None]
        missed: list[str] = []
        start, spent, done, total = time.monotonic(), 0.0, 0, sum(recipe.seconds for recipe in recipes)
        for number, recipe in enumerate(recipes, start=1):
            # the pace of this machine, once it is known
            pace = spent / done if done else 1.0
            left = format_seconds(pace * (total - done))
            print(f'[{number}/{len(recipes)}] {recipe.name}: {recipe.task}; about {left} left in all', flush=True)
            began, is_trained = time.monotonic(), (args.work_dir / recipe.folder / recipe.checkpoint).exists()
            lacking = [name for name in recipe.begins_with if published(name) is None]
            if lacking:
                print(f'{recipe.name}: left out, as it begins with {lacking[0]}', file=sys.stderr)
            if lacking or not publish_one(recipe, args.work_dir.absolute()):
                missed.append(recipe.name)
            if is_trained:  # before: it says nothing about the pace
                total -= recipe.seconds
            else:
                done += recipe.seconds
                spent += time.monotonic() - began
    count, took = len(recipes) - len(missed), format_seconds(time.monotonic() - start)
    print(f'{count} models published in {took}: {published_folders()[0]}')
    if missed:
        print(f'not published: {", ".join(missed)}', file=sys.stderr)
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
