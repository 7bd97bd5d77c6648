"""Reading pickles that hold plain values, without running anything that they ask for.

A pickle is a program: it names functions of any package and calls them. Here it can name nothing but what the caller
knows, so that lists, dicts, texts, bytes and numbers are all that it makes.
"""

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any


class UnpicklingRefused(Exception):
    """A pickle is damaged, or names something that is not known; the message says which."""


class _Unpickler(pickle.Unpickler):
    """Unpickler that finds only what is known."""

    def __init__(self, data: bytes, known: Mapping[tuple[str, str], Any], encoding: str) -> None:
        super().__init__(io.BytesIO(data), encoding=encoding, errors='replace')
        self._known = known

    def find_class(self, module: str, name: str) -> Any:
        """Return what is known by a name."""
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f'it names {module}.{name}, which no published file does')
        return self._known[module, name]


def load_plain(
    data: bytes, known: Mapping[tuple[str, str], Callable | str] | None = None, encoding: str = 'utf-8'
) -> Any:
    """Load a pickle of plain values.

    Args:
        data: its bytes.
        known: by module and name what stands in for a class or function that the pickle may name; nothing is imported.
        encoding: of the texts that Python 2 wrote, in which bytes of another encoding become U+FFFD; ``'bytes'`` leaves
            them as they are.

    Raises:
        UnpicklingRefused: it is no whole pickle, or names something else.

    >>> import pickle
    >>> load_plain(pickle.dumps([{'ref_id': 1, 'sentences': ('a dog', None)}]))
    [{'ref_id': 1, 'sentences': ('a dog', None)}]
    >>> load_plain(b'cos\\nsystem\\n(S"ls"\\ntR.')
    Traceback (most recent call last):
    florence_mm.utils.plain_pickle.UnpicklingRefused: it names os.system, which no published file does
    """
    try:
        return _Unpickler(data, known or {}, encoding).load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise UnpicklingRefused(str(error).split('\n')[0] or type(error).__name__) from None
