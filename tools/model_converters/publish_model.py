"""Publish a trained checkpoint: only the weights, as safetensors, with their origin in the header.

python tools/model_converters/publish_model.py work_dirs/quickstart/epoch_22.pth coswin_micro.safetensors

The optimizer state and log history are dropped, the config, class names and version go into the header, and the first
eight digits of the file's SHA-256 into its name. Exit status: 0, or 2 with one sentence if it cannot be published.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import safetensors

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.errors import one_sentence_errors
from florence_mm.models.checkpoints.publishing import publish


def main() -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', help='a checkpoint written by training')
    parser.add_argument('target', help='the file to write, .safetensors; the hash is added to its name')
    args = parser.parse_args()
    target = Path(args.target)
    if target.suffix != '.safetensors':
        parser.error(f'{target} must end in .safetensors')
    with one_sentence_errors():
        published = publish(args.source, target)
    with safetensors.safe_open(published, 'pt') as opened:
        count = len(opened.keys())
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    print(f'{count} tensors, {published.stat().st_size / 2**20:.1f} MiB, sha256 {digest}: {published}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
