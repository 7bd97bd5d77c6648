"""Files of an export: nothing is left of one that fails, and no file takes another's place unasked."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from florence_mm.errors import UsageError
from florence_mm.utils.files import refuse_overwriting, replacing

#: Formats by the suffix of their main file.
FORMATS = {'.onnx': 'onnx', '.xml': 'openvino', '.pt2': 'torch'}
_PACKAGES = {'onnx': ('onnx', 'onnxscript', 'onnxruntime'), 'openvino': ('openvino', 'onnx', 'onnxscript'), 'torch': ()}


def format_of(path: str | Path) -> str:
    """Name the format of a file by its suffix.

    Raises:
        UsageError: another suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(
            f'{path} ends in {suffix or "no suffix"!r}; name a file .onnx, .xml (OpenVINO) or .pt2 (torch.export)'
        )
    return FORMATS[suffix]


def require_packages(file_format: str, precision: str = 'fp32') -> None:
    """Check that the packages of a format, and those that quantize it, are installed.

    Raises:
        UsageError: one is missing.
    """
    needed = _PACKAGES[file_format]
    if file_format == 'openvino' and precision == 'int8':
        needed = (*needed, 'nncf')
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise UsageError(
            f'{file_format} files need {" and ".join(missing)}; install with \'pip install "florence_mm[export]"\''
        )


def check_target(target: str | Path, sources: list[str | Path | None], overwrite: bool) -> None:
    """Check that a file may be written.

    Raises:
        UsageError: it is one of the inputs, or it exists and ``overwrite`` is off.
    """
    refuse_overwriting(target, sources, 'the output')
    if Path(target).exists() and not overwrite:
        raise UsageError(f'{target} exists; name another file, or give --overwrite')


@contextmanager
def placed(target: str | Path) -> Iterator[Path]:
    """Yield a path in a new folder beside ``target``; if the block does not raise, its files take their places.

    A format may write a second file, of weights, whose name is in the first: both are written under their final names.

    Raises:
        UsageError: ``target`` is a folder, a device or a pipe.
        OSError: the folder cannot be written.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f'.{target.stem[:100]}.', suffix='.tmp', dir=target.parent))
    try:
        yield folder / target.name
        # weights first, so that a main file is never without its own
        for file in sorted(folder.iterdir(), key=lambda file: file.name == target.name):
            with replacing(target.parent / file.name) as temporary:
                file.rename(temporary)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
