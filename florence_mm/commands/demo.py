"""Open a page in the browser: classify, search, detect, recognize videos, ask, caption, solve tasks.

Each tab offers the models of its task that were published on this machine, or the one that its option names: the name
of a model, or a config and a checkpoint. Uploads stay on this machine, and the page loads nothing from other hosts.
Exit status: 0 after Ctrl-C, or 2 with one sentence.
"""

import argparse

from florence_mm.config.arguments import device, port

from .search import require_index

EXAMPLES = (
    'florence-mm demo',
    'florence-mm demo --detect CONFIG CHECKPOINT --port 8000',
)
#: Names of the tabs, see ``florence_mm.apis.page.tasks``.
TABS = ('classify', 'search', 'detect', 'video', 'ask', 'caption', 'solve')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    for tab in TABS:
        parser.add_argument(
            f'--{tab}', nargs='+', metavar='MODEL', help=f'model of the tab {tab}: a name, or a config and a checkpoint'
        )
    parser.add_argument('--index', metavar='DIR', help='index to search, made by florence-mm search index')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on (default: this machine alone)')
    parser.add_argument('--port', type=port, help='port (default: the first free one from 7860)')
    parser.add_argument('--device', type=device, help='cpu, cuda or cuda:NUMBER; default: the GPU if there is one')


def run(args: argparse.Namespace) -> int:
    """Start the page and wait for Ctrl-C."""
    import tempfile
    from pathlib import Path

    from florence_mm.apis.page.examples import PICTURES, write_examples
    from florence_mm.apis.page.layout import build_page, import_gradio, launch
    from florence_mm.apis.page.models import PageModels

    if args.index is not None:
        require_index(args.index)
    import_gradio()
    with tempfile.TemporaryDirectory(prefix='florence_page_') as name:
        folder = Path(name)
        examples = write_examples(folder / 'examples')
        given = {tab: getattr(args, tab) for tab in TABS}
        models = PageModels(given, args.device, args.index, folder / 'examples' / PICTURES)
        page = build_page(models, examples, folder / 'results')
        launch(page, args.host, args.port, folder)
    return 0
