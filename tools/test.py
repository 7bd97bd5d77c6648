"""Test a checkpoint with a config's test data and metrics.

    python tools/test.py CONFIG CHECKPOINT [--work-dir DIR] [--out FILE.pt] [--show-dir DIR] [--tta] ...

Metrics go to the log and to ``test_metrics.json`` in the work folder. Exit status: 0, or 2 with one sentence if
config, checkpoint or data are unusable.
"""

import argparse

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.apis.named import checkpoint_and_inputs
from florence_mm.config.arguments import positive_int, probability
from florence_mm.config.load import load_config
from florence_mm.config.options import add_run_arguments, parse_run_arguments
from florence_mm.engine.launch import build_runner, require_checkpoint, set_work_dir
from florence_mm.engine.predictions import SavePredictions, ShowPredictionsHook, files_named_in
from florence_mm.engine.tta import with_test_time_augmentation
from florence_mm.errors import UsageError, one_sentence_errors
from florence_mm.utils.files import refuse_overwriting


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description="Test a checkpoint with a config's test data and metrics.")
    parser.add_argument('config', help='config file, PACKAGE::FILE, or the name of a model')
    parser.add_argument(
        'checkpoint', nargs='?', help=".pth or .safetensors file; may be left out or '-' for a model given by name"
    )
    add_run_arguments(parser, 'logs and metrics', 'test_dataloader.batch_size=8')
    parser.add_argument('--out', metavar='FILE', help='write all predictions to a .pt or .json file')
    parser.add_argument('--show-dir', metavar='DIR', help='draw samples and predictions here: classes, boxes, answers')
    parser.add_argument('--tta', action='store_true', help="test-time augmentation with the config's tta_pipeline")
    parser.add_argument('--show-interval', type=positive_int, metavar='N', help='draw every N-th sample (1)')
    parser.add_argument('--show-score-thr', type=probability, help='lowest score of drawn boxes (0.3)')
    return parse_run_arguments(parser)


def main() -> None:
    """Read the config, load the checkpoint, and test."""
    args = parse_args()
    with one_sentence_errors():
        args.checkpoint = str(checkpoint_and_inputs(args.config, args.checkpoint, [])[0])
        cfg = load_config(args.config, args.cfg_options)
        if cfg.get('test_dataloader') is None or cfg.get('test_evaluator') is None:
            raise UsageError(f'{args.config} has no test_dataloader and test_evaluator; add them')
        if args.show_dir is None and (args.show_interval, args.show_score_thr) != (None, None):
            raise UsageError('--show-interval and --show-score-thr are about drawings; name a folder with --show-dir')
        require_checkpoint(args.checkpoint)
        if args.out:
            refuse_overwriting(args.out, [args.config, args.checkpoint, *files_named_in(cfg.test_dataloader)], '--out')
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
        runner.test()


if __name__ == '__main__':
    main()
