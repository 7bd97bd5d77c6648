"""The page itself, built with Gradio."""

import itertools
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from florence_mm.apis.base import ITEM_ERRORS
from florence_mm.errors import UsageError, user_sentence

from .models import PageModels
from .tasks import TABS, Answer, Tab, check_upload

if TYPE_CHECKING:
    import gradio

#: Largest upload.
MAX_FILE_SIZE = '50mb'
#: Answers whose drawings are kept, so that a page that is open for days fills no disk.
KEPT = 50
#: A browser asks no other host for fonts that are its own.
_FONTS = ('system-ui', 'sans-serif')


def import_gradio() -> 'gradio':  # type: ignore[valid-type]
    """Import Gradio with its requests to other hosts turned off.

    Raises:
        UsageError: it is not installed.
    """
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    os.environ.setdefault('HF_HUB_DISABLE_TELEMETRY', '1')
    try:
        import gradio
    except ImportError as error:
        raise UsageError(f'the page needs Gradio ({error}); run: pip install "florence_mm[demo]"') from None
    return gradio


def build_page(models: PageModels, examples: dict[str, list[str]], folder: Path) -> 'gradio.Blocks':
    """Build the page.

    Args:
        models: the models of each tab.
        examples: files to try by the name of the tab.
        folder: where drawings are kept while the page is open.

    Returns:
        the page, to be started with :func:`launch`.

    Raises:
        UsageError: Gradio is not installed.
    """
    gr = import_gradio()
    numbers = itertools.count()
    with gr.Blocks(title='florence_mm', analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown('# florence_mm\nUploads stay on this machine.')
        for tab in TABS:
            with gr.Tab(tab.title, id=tab.name, elem_id=f'tab-{tab.name}'):
                _add_tab(gr, tab, models, examples.get(tab.name, []), partial(_answer, tab, models, folder, numbers))
    return page


def _add_tab(gr: Any, tab: Tab, models: PageModels, examples: list[str], answer: Callable) -> None:
    labels = [choice.label for choice in models.choices[tab.name]]
    gr.Markdown(tab.purpose)
    with gr.Row():
        with gr.Column():
            # not gr.Image, which decodes an upload of any size, and fails without a word if it is no image
            file = gr.File(label=tab.media.capitalize(), elem_id=f'{tab.name}-file')
            text = gr.Textbox(
                label=tab.asks or '',
                info=tab.asked,
                placeholder=tab.hint,
                visible=tab.asks is not None,
                elem_id=f'{tab.name}-text',
            )
            choice = gr.Dropdown(
                list(tab.choices),
                value=tab.choices[0] if tab.choices else None,
                label='Task',
                visible=bool(tab.choices),
                elem_id=f'{tab.name}-choice',
            )
            model = gr.Dropdown(
                labels,
                value=labels[0] if labels else None,
                label='Model',
                visible=len(labels) > 1,
                allow_custom_value=True,
            )
            press = gr.Button(tab.title, variant='primary', elem_id=f'{tab.name}-run')
            if examples:
                gr.Examples([[name] for name in examples], [file], label='Examples')
        with gr.Column():
            said = gr.Markdown(elem_id=f'{tab.name}-said')
            # drawings are shown as they were written, without a second compression
            shown = (
                gr.Video
                if tab.media == 'video'
                else partial(gr.Image, type='filepath', format='png', buttons=['download', 'fullscreen'])
            )
            drawing = shown(label='Result', interactive=False, elem_id=f'{tab.name}-drawing')
            table = gr.Dataframe(headers=list(tab.columns), interactive=False, elem_id=f'{tab.name}-table')
    # one at a time: models are not shared between threads
    gr.on(
        [press.click, text.submit], answer, [file, text, model, choice], [drawing, table, said], concurrency_id='models'
    )


def _answer(
    tab: Tab,
    models: PageModels,
    folder: Path,
    numbers: Any,
    file: str | None,
    text: str | None,
    model: str | None,
    choice: str | None = None,
) -> tuple[str | None, list[list[Any]], str]:
    """Answer a press of the button: drawing, rows of the table and a sentence, which says what is wrong if any is."""
    number = next(numbers)
    here = folder / str(number)
    shutil.rmtree(folder / str(number - KEPT), ignore_errors=True)
    try:
        answer = _run(tab, models, file, text or '', model, here, choice)
    except (UsageError, *ITEM_ERRORS) as error:
        return None, [], f'**{user_sentence(error) or str(error).strip() or type(error).__name__}**'
    return None if answer.drawing is None else str(answer.drawing), answer.rows, answer.said


def _run(
    tab: Tab, models: PageModels, file: str | None, text: str, model: str | None, folder: Path, choice: str | None
) -> Answer:
    upload = check_upload(file, tab.media) if file is not None or tab.needs_file else None
    chosen = (choice or tab.choices[0],) if tab.choices else ()
    return tab.run(models.get(tab, model), upload, text, folder, *chosen)


def launch(page: 'gradio.Blocks', host: str, port: int | None, folder: Path, block: bool = True) -> str:
    """Start the page; returns its address.

    Args:
        page: the page.
        host: address to listen on; '127.0.0.1' for this machine alone.
        port: the port; None: the first free one from 7860.
        folder: folder of the drawings, which the page may serve.
        block: return only after Ctrl-C.

    Raises:
        UsageError: the port is taken.
    """
    gr = import_gradio()
    theme = gr.themes.Default(font=list(_FONTS), font_mono=['ui-monospace', 'monospace'])
    try:
        _, address, _ = page.queue(default_concurrency_limit=1).launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            max_file_size=MAX_FILE_SIZE,
            allowed_paths=[str(folder)],
            footer_links=[],
            enable_monitoring=False,
            ssr_mode=False,
            theme=theme,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise UsageError(
            f'the page cannot be started on {host}:{port or 7860} ({error}); give another --port'
        ) from None
    print(f'the page is at {address} (Ctrl-C ends it)', flush=True)
    if block:
        page.block_thread()
    return address
