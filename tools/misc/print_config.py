"""Print a config as the tools see it, with all its bases.

    python tools/misc/print_config.py CONFIG [--origin] [--cfg-options KEY=VALUE ...]

``--origin`` prints one value a line with the file it comes from.
"""

import argparse
import os

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.config.check import check_config
from florence_mm.config.load import load_config
from florence_mm.config.options import add_config_options
from florence_mm.config.origin import COMMAND_LINE, origins
from florence_mm.errors import one_sentence_errors


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description='Print a config as the tools see it, with all its bases.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--origin', action='store_true', help='one value a line, with the file it comes from')
    parser.add_argument('--check', action='store_true', help='also check keys and types, as training does')
    add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    """Print the config."""
    args = parse_args()
    with one_sentence_errors():
        cfg = load_config(args.config, args.cfg_options)
        if args.check:
            check_config(cfg)
        if not args.origin:
            print(cfg.pretty_text)
            return
        found = origins(cfg.filename, args.cfg_options)
        width = min(max(len(f'{key} = {value!r}') for key, (value, _) in found.items()), 100)
        for key, (value, file) in found.items():
            file = file if file == COMMAND_LINE else os.path.relpath(file)
            print(f'{f"{key} = {value!r}":<{width}}  # {file}')


if __name__ == '__main__':
    main()
