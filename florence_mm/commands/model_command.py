"""Commands that run a model on the user's files, as ``florence-mm NAME`` and as a script in ``tools/``."""

import argparse
import gc
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from florence_mm.errors import one_sentence_errors
from florence_mm.utils.files import refuse_overwriting

from .model_choice import add_model_options, add_positional_model, add_run_options, find_model, read_config

Args = argparse.Namespace


def collect_rarely() -> None:
    """Let this process look for garbage in cycles after every 20,000 objects instead of 700.

    The imports make a million objects that stay, and looking through them again and again takes a third of a second.
    """
    gc.set_threshold(20_000, *gc.get_threshold()[1:])


@dataclass(frozen=True)
class ModelCommand:
    """A command over an inferencer. ``florence-mm NAME`` has ``--model``; the script in ``tools/`` has config and
    checkpoint as its first arguments.

    Nothing that is read can be written over: this is checked before the config is read.

    Attributes:
        add_own: function that adds the command's own arguments to a parser.
        work: function of the arguments, the config and the checkpoint; returns the exit status.
        written: function from the arguments to option and path of each file that is written.
        inputs: name of the argument with the inputs.
        batched: what a batch is of, for the help.
        check: function that checks the arguments before a model is looked for.
        read: function from the arguments to further files that are read.
    """

    add_own: Callable[[argparse.ArgumentParser], None]
    work: Callable[[Args, Any, str | Path], int]
    written: Callable[[Args], Iterable[tuple[str, str | Path | None]]]
    inputs: str = 'images'
    batched: str = 'images'
    check: Callable[[Args], None] | None = None
    read: Callable[[Args], Iterable[str | Path | None]] = lambda args: ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of ``florence-mm NAME``."""
        self.add_own(parser)
        add_model_options(parser, self.batched)

    def run(self, args: Args) -> int:
        """Find the chosen model and do the work; returns the exit status."""
        collect_rarely()
        if self.check is not None:
            self.check(args)
        find_model(args)
        return self._work(args)

    def run_tool(self, doc: str | None) -> int:
        """Do the work with the arguments of the process, for a script in ``tools/``; returns the exit status.

        Args:
            doc: description for the help.
        """
        parser = argparse.ArgumentParser(
            prog=Path(sys.argv[0]).name,
            description=(doc or '').strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_positional_model(parser)
        self.add_own(parser)
        add_run_options(parser, self.batched)
        args = parser.parse_args()
        collect_rarely()
        with one_sentence_errors():
            from florence_mm.apis.named import checkpoint_and_inputs

            # the checkpoint may be left out before the inputs
            args.checkpoint, inputs = checkpoint_and_inputs(args.config, args.checkpoint, getattr(args, self.inputs))
            setattr(args, self.inputs, inputs)
            if self.check is not None:
                self.check(args)
            return self._work(args)

    def _work(self, args: Args) -> int:
        sources = [args.config, args.checkpoint, *getattr(args, self.inputs), *self.read(args)]
        for option, path in self.written(args):
            if path:
                refuse_overwriting(path, sources, option)
        return self.work(args, read_config(args), args.checkpoint)
