"""Train a model from a config.

    python tools/train.py configs/unicl/NAME.py [--work-dir DIR] [--resume [CHECKPOINT]] [--smoke] ...

Exit status: 0 after a finished run, 2 with one sentence if config, checkpoint or data are unusable.
"""

import argparse
import os
import sys
import tempfile

if '--smoke' in sys.argv:
    # torch and mmengine read it when they are imported
    os.environ['CUDA_VISIBLE_DEVICES'] = ''

import florence_mm  # noqa: E402, F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.config.arguments import seed  # noqa: E402
from florence_mm.config.load import load_config
from florence_mm.config.options import add_run_arguments, parse_run_arguments  # noqa: E402
from florence_mm.engine.launch import build_runner, set_amp, set_auto_scale_lr, set_resume, set_seed, set_work_dir
from florence_mm.errors import one_sentence_errors  # noqa: E402
from florence_mm.smoke.run import run_smoke  # noqa: E402


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description='Train a model from a config.')
    parser.add_argument('config', help='config file, PACKAGE::FILE, or the name of a model')
    add_run_arguments(parser, 'checkpoints and logs', 'optim_wrapper.optimizer.lr=1e-4')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from the latest checkpoint in the work folder, or from the given one',
    )
    parser.add_argument(
        '--amp',
        nargs='?',
        const='bfloat16',
        choices=('bfloat16', 'float16'),
        help='automatic mixed precision; bfloat16 (default) also on CPU, float16 with loss scaling on a GPU',
    )
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument('--seed', type=seed, help='seed of weights, data order, augmentation and dropout')
    parser.add_argument(
        '--smoke', action='store_true', help='two training steps and a validation on generated data, on the CPU'
    )
    return parse_run_arguments(parser)


def main() -> None:
    """Read the config, apply the arguments to it, and train."""
    args = parse_args()
    with one_sentence_errors():
        cfg = load_config(args.config, args.cfg_options)
        cfg.launcher = args.launcher
        if args.seed is not None:
            set_seed(cfg, args.seed)
        if args.amp:
            set_amp(cfg, args.amp)
        if args.smoke:
            with tempfile.TemporaryDirectory(prefix='florence_smoke_') as folder:
                run_smoke(cfg, folder)
            return
        if args.auto_scale_lr:
            set_auto_scale_lr(cfg)
        set_work_dir(cfg, args.work_dir)
        set_resume(cfg, args.resume)
        build_runner(cfg).train()


if __name__ == '__main__':
    main()
