"""Train a model from a config.

Exit status: 0 after a finished run, 2 with one sentence if config, checkpoint or data are unusable.
"""

import argparse
import os
import tempfile

from florence_mm.config.arguments import seed
from florence_mm.config.options import add_run_arguments, set_local_rank

EXAMPLES = (
    'florence-mm train configs/unicl/unicl_coswin-micro_1xb64-22e_digits.py --seed 0',
    'florence-mm train CONFIG --work-dir work_dirs/mine --amp --cfg-options train_cfg.max_epochs=3',
    'florence-mm train CONFIG --work-dir work_dirs/mine --resume',
    'florence-mm train CONFIG --smoke',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument('config', help='config file, PACKAGE::FILE, or the name of a model')
    add_run_arguments(parser, 'checkpoints and logs', 'optim_wrapper.optimizer.lr=1e-4')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from the latest checkpoint in the work folder (a folder without one begins as without --resume), '
        'or from the given one',
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


def run(args: argparse.Namespace) -> int:
    """Read the config, apply the arguments to it, and train."""
    if args.smoke:
        # torch and mmengine read it when they are imported
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    set_local_rank(args)
    from florence_mm.config.load import load_config
    from florence_mm.engine import launch
    from florence_mm.smoke.run import run_smoke

    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.seed is not None:
        launch.set_seed(cfg, args.seed)
    if args.amp:
        launch.set_amp(cfg, args.amp)
    if args.smoke:
        with tempfile.TemporaryDirectory(prefix='florence_smoke_') as folder:
            run_smoke(cfg, folder)
        return 0
    if args.auto_scale_lr:
        launch.set_auto_scale_lr(cfg)
    launch.set_work_dir(cfg, args.work_dir)
    launch.set_resume(cfg, args.resume)
    launch.build_runner(cfg).train()
    return 0
