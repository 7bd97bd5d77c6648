"""Pretrain a two-tower model on the embedded digits and classify held-out ones zero-shot, in one command.

Writes to the work directory: the checkpoint, the config, metrics.json, curves.png (loss and scores) and predictions.png
(held-out images with their three best class names). The weights are published, so that ``get_model`` has them by the
name of the config. Exit status 1 if the score is below ``--require`` or not above a
logistic regression on the pixels of the same split.

Usage: python tools/quickstart.py [--seed 0]
"""

import argparse
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import florence_mm  # noqa: F401  (patches the stack before mmengine's registries are used)

import numpy as np  # isort: skip
import torch
from mmengine.logging import MMLogger
from sklearn.linear_model import LogisticRegression

from florence_mm.config.arguments import probability, seed
from florence_mm.config.check import check_whole_config
from florence_mm.config.load import load_config
from florence_mm.corpora.digits import load_digits_split, write_digits
from florence_mm.engine.launch import set_seed, set_work_dir
from florence_mm.engine.runner import FlorenceRunner
from florence_mm.errors import UsageError, one_sentence_errors
from florence_mm.models.checkpoints.publishing import publish
from florence_mm.utils.files import write_atomic
from florence_mm.utils.home import published_folders
from florence_mm.visualization import draw_prediction_grid

CONFIG = Path(__file__).parents[1] / 'configs/unicl/unicl_coswin-micro_1xb64-22e_digits.py'
SHOWN = 20


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default=CONFIG, type=Path, help='another config on the digits')
    parser.add_argument('--data', default='data/digits', type=Path, help='where the digits are written')
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/quickstart, with _seedN for other seeds')
    parser.add_argument('--seed', type=seed, default=0, help='seed of weights, data order and augmentation')
    parser.add_argument('--require', type=probability, default=0.985, help='lowest zero-shot top-1 for exit status 0')
    args = parser.parse_args()
    if args.work_dir is None:
        args.work_dir = Path('work_dirs/quickstart' + (f'_seed{args.seed}' if args.seed else ''))
    return args


def pixel_baseline() -> float:
    """Return the accuracy of a logistic regression on the 64 pixels, on the held-out digits."""
    (train, train_labels), (test, test_labels) = load_digits_split('train'), load_digits_split('test')
    scale = train.max()
    model = LogisticRegression(max_iter=5000).fit(train.reshape(len(train), -1) / scale, train_labels)
    return float(np.mean(model.predict(test.reshape(len(test), -1) / scale) == test_labels))


def draw_examples(runner: FlorenceRunner, path: Path) -> None:
    """Draw a grid of held-out images with their three best classes, the misclassified ones first."""
    dataset = runner.test_dataloader.dataset
    packed = [dataset[i] for i in range(len(dataset))]
    runner.model.eval()
    samples = []
    for start in range(0, len(packed), 150):
        part = packed[start : start + 150]
        batch = {key: [item[key] for item in part] for key in ('inputs', 'data_samples')}
        samples += runner.model.test_step(batch)
    scores = torch.stack([sample.pred_score for sample in samples])  # (N, K)
    labels = torch.cat([sample.gt_label for sample in samples])  # (N,)
    wrong = scores.argmax(1) != labels
    # wrong ones for at most half of the grid, then correct ones spread over the set
    chosen = wrong.nonzero().flatten()[: SHOWN // 2].tolist()
    right = (~wrong).nonzero().flatten()
    chosen += right[torch.linspace(0, len(right) - 1, SHOWN - len(chosen)).long()].tolist()
    draw_prediction_grid(
        images=[packed[i]['inputs'].permute(1, 2, 0).numpy() for i in chosen],  # (H, W, 3) each
        class_names=dataset.metainfo['classes'],
        scores=scores[chosen],
        labels=labels[chosen],
        path=path,
        top=3,
        title=f'{len(labels) - int(wrong.sum())} of {len(labels)} held-out digits right; wrong ones shown first',
    )


class QuietConsoleRunner(FlorenceRunner):
    """Runner whose records of several lines, such as the config and the environment, are in the log file alone."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(is_one_line)
        return logger


def is_one_line(record: logging.LogRecord) -> bool:
    """Whether a record has one line."""
    return '\n' not in record.getMessage().strip()


def run(args: argparse.Namespace) -> int:
    """Prepare data, train, evaluate, draw, and compare with the baseline; returns the exit status."""
    # a model this small gains nothing from a second thread
    torch.set_num_threads(1)
    cfg = load_config(args.config)
    check_whole_config(cfg)
    for phase in ('train', 'val', 'test'):
        if cfg.get(f'{phase}_dataloader') is None:
            raise UsageError(
                f'config {args.config} has no {phase}_dataloader; give one that trains, validates and tests'
            )
    set_work_dir(cfg, str(args.work_dir))
    set_seed(cfg, args.seed)
    for phase in ('train', 'val', 'test'):
        dataset = cfg[f'{phase}_dataloader'].dataset
        dataset.ann_file = str(args.data / Path(dataset.ann_file).name)
    write_digits(args.data)
    baseline = pixel_baseline()

    runner = QuietConsoleRunner.from_cfg(cfg)
    print(f'the whole log is in {runner.log_dir}')
    start = time.time()
    runner.train()
    seconds = time.time() - start
    scores = runner.test()

    picture = args.work_dir / 'predictions.png'
    draw_examples(runner, picture)
    top1 = float(scores['zero_shot/top1'])
    metrics = {
        'seed': args.seed,
        'zero_shot_top1': top1,
        'pixel_logistic_regression_top1': baseline,
        'training_seconds': round(seconds, 1),
        **{name: float(value) for name, value in scores.items()},
    }
    summary = args.work_dir / 'metrics.json'
    # the runner has written the validation scores there
    metrics['training'] = json.loads(summary.read_text())
    write_atomic(summary, json.dumps(metrics, indent=2).encode())
    print(
        f'\n{len(runner.test_dataloader.dataset)} held-out digits, seed {args.seed}, trained for {seconds:.0f} s\n'
        f'  zero-shot top-1                     {top1:.4f}\n'
        f'  logistic regression on the pixels   {baseline:.4f}\n'
        f'  retrieval R@1, image to text        {metrics["retrieval/i2t_R@1"]:.4f}\n'
        f'results are in {args.work_dir}: metrics.json, curves.png, {picture.name}'
    )
    if top1 < args.require or top1 <= baseline:
        print(f'below what is expected: at least {args.require} and above the logistic regression', file=sys.stderr)
        return 1
    if args.config == CONFIG:
        checkpoint = (args.work_dir / 'last_checkpoint').read_text().strip()
        target = published_folders()[0] / f'{CONFIG.stem}.safetensors'
        print(f'get_model({CONFIG.stem!r}): {publish(checkpoint, target, {"score": {"zero_shot_top1": top1}})}')
    return 0


def main() -> int:
    """Run with the command line's arguments."""
    args = parse_args()
    with one_sentence_errors():
        return run(args)


if __name__ == '__main__':
    sys.exit(main())
