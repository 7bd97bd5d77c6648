"""Files of the Hugging Face hub, named ``hf://OWNER/REPO[/FILE][@REVISION]``."""

import re
from pathlib import Path

from florence_mm.errors import UsageError
from florence_mm.utils.home import home, is_offline

SCHEME = 'hf'
#: The file of a repository that names none.
DEFAULT_FILE = 'model.safetensors'
_ADDRESS = re.compile(r'hf://([\w.-]+/[\w.-]+)(?:/([^@]+))?(?:@([^@]+))?')


def split_address(address: str) -> tuple[str, str, str | None]:
    """Split an address into repository, file and revision.

    >>> split_address('hf://openai/clip-vit-base-patch32@main')
    ('openai/clip-vit-base-patch32', 'model.safetensors', 'main')

    Raises:
        UsageError: it has not that form.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or '..' in address:
        raise UsageError(f'{address} is no address on the hub; write hf://OWNER/REPO, /FILE and @REVISION may follow')
    return found[1], found[2] or DEFAULT_FILE, found[3]


def hub_file(address: str) -> Path:
    """Download a file of the hub, unless it is there; the hub's own cache is in ``home()``.

    Raises:
        UsageError: there is no such repository, revision or file, it needs permission, or it is missing while downloads
            are switched off.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, file, revision = split_address(address)
    offline = is_offline()
    try:
        return Path(
            hf_hub_download(repository, file, revision=revision, cache_dir=home() / 'hub', local_files_only=offline)
        )
    except LocalEntryNotFoundError as error:
        if offline:
            problem = 'is not in the cache, and downloads are switched off; set FLORENCE_MM_OFFLINE and HF_HUB_OFFLINE'
            raise UsageError(f'{address} {problem} to 0, or give a file') from error
        raise UsageError(
            f'{address} cannot be downloaded, the hub is not reached; check the connection, or give a file'
        ) from error
    except GatedRepoError as error:
        raise UsageError(
            f'{address} needs permission; ask for it on its page, and sign in with `hf auth login`'
        ) from error
    except RepositoryNotFoundError as error:
        raise UsageError(f'{address}: the hub has no repository {repository}, or it is private; check it') from error
    except RevisionNotFoundError as error:
        raise UsageError(f'{address}: {repository} has no revision {revision}; check it') from error
    except EntryNotFoundError as error:
        raise UsageError(f'{address}: {repository} has no file {file}; look at its files and name one') from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f'{address} cannot be downloaded ({said}); try again later, or give a file') from error
