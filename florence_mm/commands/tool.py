"""Scripts in ``tools/`` whose command lines start with config and checkpoint, over the modules of the subcommands."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from florence_mm.errors import one_sentence_errors


def run_with_config(
    module: ModuleType, work: Callable[..., int], inputs: str, check: Callable[..., None] | None = None
) -> int:
    """Parse the arguments of the process, find config and checkpoint, and do the work; returns the exit status.

    Args:
        module: the subcommand's module, which has ``add_tool_arguments``.
        work: its function of the arguments, the config and the checkpoint.
        inputs: name of the argument with the inputs, as the checkpoint may be left out before them.
        check: function that checks the arguments before the config is read.
    """
    doc = (module.__doc__ or '').strip()
    parser = argparse.ArgumentParser(
        prog=Path(sys.argv[0]).name, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.add_tool_arguments(parser)
    args = parser.parse_args()
    with one_sentence_errors():
        from florence_mm.apis.named import checkpoint_and_inputs
        from florence_mm.config.load import load_config

        args.checkpoint, files = checkpoint_and_inputs(args.config, args.checkpoint, getattr(args, inputs))
        setattr(args, inputs, files)
        if check is not None:
            check(args)
        return work(args, load_config(args.config, args.cfg_options), args.checkpoint)
