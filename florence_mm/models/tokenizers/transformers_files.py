"""Loading of transformers' files from a folder or the Hugging Face hub."""

import socket
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any


def folder_or_name(what: str, pretrained: str) -> dict[str, Any]:
    """Make the arguments of ``from_pretrained``; a folder, or a hub that cannot be reached, is not asked for updates.

    Raises:
        FileNotFoundError: ``pretrained`` looks like a folder that does not exist.
    """
    if Path(pretrained).is_dir():
        return {'pretrained_model_name_or_path': str(pretrained), 'local_files_only': True}
    if pretrained.startswith(('.', '/', '~')) or pretrained.count('/') > 1 or pretrained.endswith('/'):
        raise FileNotFoundError(
            f'the folder {pretrained} of the {what} does not exist; give a folder that transformers saved, or the name '
            'of a model on the Hugging Face hub'
        )
    return {'pretrained_model_name_or_path': pretrained, 'local_files_only': not _hub_answers()}


def _hub_answers() -> bool:
    """Whether the hub can be reached; if not, transformers would retry for minutes before it uses its cache."""
    from huggingface_hub.constants import ENDPOINT

    if urllib.request.getproxies():
        return True  # through a proxy, only a request could tell
    url = urllib.parse.urlsplit(ENDPOINT)
    try:
        socket.create_connection((url.hostname, url.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def unusable(what: str, pretrained: str, error: Exception) -> ValueError:
    """Make the error for a ``pretrained`` that transformers could not load."""
    reason = str(error).strip().splitlines()[0].rstrip('.') if str(error).strip() else type(error).__name__
    return ValueError(
        f'no {what} could be read from {pretrained!r} ({reason}); give a folder that transformers saved, or a name on '
        'the Hugging Face hub with a connection to it'
    )
