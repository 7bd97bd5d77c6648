"""Count parameters and multiply-adds of a config's model, as a table of its modules.

    python tools/analysis_tools/get_flops.py CONFIG [--shape 224 224] [--module image_encoder] [--depth 2]

Counts are for one image (and one text of full length, for models with a text encoder), or for one clip or one view of
frames as the test pipeline samples them. Two-stage detectors get as many proposals as the test keeps at most. A
multiply-add is one MAC; FLOPs are twice as many.
"""

import argparse
import json

from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.config.arguments import positive_int
from florence_mm.config.check import check_parts
from florence_mm.config.load import load_config
from florence_mm.config.options import add_config_options
from florence_mm.engine.complexity import count_macs, count_parameters, readable, table
from florence_mm.engine.example_calls import clip_size, example_calls
from florence_mm.errors import UsageError, one_sentence_errors, user_sentence


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description="Parameters and multiply-adds of a config's model.")
    parser.add_argument('config', help='config file, or PACKAGE::FILE')
    parser.add_argument(
        '--shape', type=positive_int, nargs='+', default=[224, 224], help='height and width, or one for both'
    )
    parser.add_argument('--module', help='dotted name of a part that takes images, such as image_encoder')
    parser.add_argument(
        '--depth', type=positive_int, default=2, help='depth of the module names in the table (default: 2)'
    )
    parser.add_argument('--json', action='store_true', help='print only the totals, as JSON')
    add_config_options(parser)
    return parser.parse_args()


def build(cfg: dict, module: str | None) -> nn.Module:
    """Build the model and return it, or a part of it."""
    model = MODELS.build(cfg)
    if module is None:
        return model
    try:
        return model.get_submodule(module)
    except AttributeError as error:
        known = ', '.join(name for name, _ in model.named_children())
        raise UsageError(f'--module {module} is no part of {type(model).__name__}; it has {known}') from error


def count(cfg: ConfigDict, module: str | None, shape: tuple[int, int]) -> tuple[nn.Module, dict[str, dict[str, int]]]:
    """Build the model of a config and count the multiply-adds of each call by module."""
    counts = {}
    model = build(cfg.model, module)
    for what, run in example_calls(model, shape, clip_size(cfg)):
        try:
            counts[what] = count_macs(model, run)
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            if user_sentence(error) is not None:
                raise
            said = str(error).strip().partition('\n')[0]
            raise UsageError(
                f'{type(model).__name__} cannot be called with {what} of {shape[0]} x {shape[1]} pixels '
                f'({type(error).__name__}{": " if said else ""}{said}); give another --shape, or count a part that '
                'takes images with --module'
            ) from error
    return model, counts


def main() -> None:
    """Count and print."""
    args = parse_args()
    with one_sentence_errors():
        if len(args.shape) not in (1, 2):
            raise UsageError(f'--shape {args.shape} must be height and width, or one number for both')
        cfg = load_config(args.config, args.cfg_options)
        if cfg.get('model') is None:
            raise UsageError(f'config {args.config} has no model to count; give one that has')
        check_parts(cfg, 'model', 'data_preprocessor', default_scope='florence_mm')
        init_default_scope(cfg.get('default_scope', 'florence_mm'))
        height, width = args.shape[0], args.shape[-1]
        model, counts = count(cfg, args.module, (height, width))
        parameters = count_parameters(model)['']
        if args.json:
            print(json.dumps({'parameters': parameters, 'macs': {what: macs[''] for what, macs in counts.items()}}))
            return
        for what, macs in counts.items():
            print(what if what.startswith('one text') else f'{what}, {height} x {width} pixels')
            print(table(model, macs, args.depth) + '\n')
        totals = ', '.join(f'{readable(macs[""])} multiply-adds for {what}' for what, macs in counts.items())
        print(f'{type(model).__name__}: {readable(parameters)} parameters, {totals}')


if __name__ == '__main__':
    main()
