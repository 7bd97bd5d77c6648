"""Test a checkpoint with a config's test data and metrics.

Metrics go to the log and to test_metrics.json in the work folder. Exit status: 0, or 2 with one sentence if config,
checkpoint or data are unusable.
"""

import argparse
from pathlib import Path

from florence_mm.config.arguments import positive_int, probability
from florence_mm.config.options import add_run_arguments, set_local_rank
from florence_mm.config.precision import add_precision
from florence_mm.errors import UsageError
from florence_mm.utils.files import refuse_overwriting

EXAMPLES = (
    'florence-mm test work_dirs/quickstart/config.py work_dirs/quickstart/epoch_22.pth',
    'florence-mm test CONFIG CHECKPOINT --out predictions.json --show-dir drawn',
    'florence-mm test CONFIG CHECKPOINT --tta --cfg-options test_dataloader.batch_size=8',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument('config', help='config file, PACKAGE::FILE, or the name of a model')
    parser.add_argument(
        'checkpoint', nargs='?', help=".pth or .safetensors file; may be left out or '-' for a model given by name"
    )
    add_run_arguments(parser, 'logs and metrics', 'test_dataloader.batch_size=8')
    parser.add_argument('--out', metavar='FILE', help='write all predictions to a .pt or .json file')
    parser.add_argument('--show-dir', metavar='DIR', help='draw samples and predictions here: classes, boxes, answers')
    parser.add_argument('--tta', action='store_true', help="test-time augmentation with the config's tta_pipeline")
    add_precision(parser)
    parser.add_argument(
        '--compare',
        action='store_true',
        help='test in fp32 too, before, and print how metrics change; with --out FILE.json also write FILE_fp32.json',
    )
    parser.add_argument('--show-interval', type=positive_int, metavar='N', help='draw every N-th sample (1)')
    parser.add_argument('--show-score-thr', type=probability, metavar='SCORE', help='lowest score of drawn boxes (0.3)')


def run(args: argparse.Namespace) -> int:
    """Read the config, load the checkpoint, and test."""
    set_local_rank(args)
    from florence_mm.apis.named import checkpoint_and_inputs
    from florence_mm.config.load import load_config
    from florence_mm.engine.hooks.precision import PrecisionHook
    from florence_mm.engine.launch import build_runner, require_checkpoint, set_work_dir
    from florence_mm.engine.predictions import SavePredictions, ShowPredictionsHook, files_named_in
    from florence_mm.engine.tta import with_test_time_augmentation

    args.checkpoint = str(checkpoint_and_inputs(args.config, args.checkpoint, [])[0])
    cfg = load_config(args.config, args.cfg_options)
    if cfg.get('test_dataloader') is None or cfg.get('test_evaluator') is None:
        raise UsageError(f'{args.config} has no test_dataloader and test_evaluator; add them')
    if args.show_dir is None and (args.show_interval, args.show_score_thr) != (None, None):
        raise UsageError('--show-interval and --show-score-thr are about drawings; name a folder with --show-dir')
    if args.compare and args.precision == 'fp32':
        raise UsageError('--compare compares another precision with fp32; name it, as in --precision bf16')
    lower = None if args.precision == 'fp32' else PrecisionHook(args.precision)
    require_checkpoint(args.checkpoint)
    out = Path(args.out) if args.out else None
    exact_out = out.with_stem(f'{out.stem}_fp32') if out and args.compare else None
    for path in filter(None, (out, exact_out)):
        refuse_overwriting(path, [args.config, args.checkpoint, *files_named_in(cfg.test_dataloader)], '--out')
    if args.tta:
        cfg = with_test_time_augmentation(cfg)
    cfg.launcher = args.launcher
    cfg.load_from, cfg.resume = args.checkpoint, False
    set_work_dir(cfg, args.work_dir)
    runner = build_runner(cfg)
    if args.out:
        # a wrong file name is refused before the test rather than after it
        save = SavePredictions(args.out)
        runner._test_loop = runner.build_test_loop(runner._test_loop)
        runner.test_evaluator.metrics.append(save)
    if args.show_dir:
        score_thr = 0.3 if args.show_score_thr is None else args.show_score_thr
        runner.register_hook(ShowPredictionsHook(args.show_dir, args.show_interval or 1, score_thr))
    exact = {}
    if args.compare:
        if exact_out:
            save.path = exact_out
        exact = runner.test()
        if exact_out:
            save.path = out
    if lower is not None:
        runner.register_hook(lower)
    found = runner.test()
    for name, score in exact.items():
        if name in found and runner.rank == 0:
            print(f'{name}: {score:.4f} in fp32, {found[name]:.4f} in {args.precision} ({found[name] - score:+.4f})')
    return 0
