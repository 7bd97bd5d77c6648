"""Create the virtual environment ``.venv`` of this checkout; a second run with unchanged requirements does nothing.

Needs only the standard library and runs under old versions of Python too, so that it can say what is missing.
Usage: python3 tools/bootstrap.py [--torch-args "..."]
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, '.venv')
STAMP = os.path.join(VENV, 'florence_mm.stamp')
SOURCES = ('setup.py', 'requirements/constraints.txt', 'tools/bootstrap.py')
CONSTRAINTS = os.path.join(ROOT, 'requirements', 'constraints.txt')
OLDEST, NEWEST = (3, 10), (3, 13)
NEEDED_GIB = 4
#: seconds between two lines that say what pip is at
EVERY = 20


def check_machine():
    """Return one sentence on what the machine lacks, or None."""
    version = sys.version_info[:2]
    if not OLDEST <= version <= NEWEST:
        return 'Python %d.%d found, but florence_mm needs %d.%d to %d.%d; run make with PYTHON=python3.11, say.' % (
            version + OLDEST + NEWEST
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return 'Python has no venv module; install it (on Debian: apt-get install python%d.%d-venv).' % version
    free = shutil.disk_usage(ROOT).free / 2**30
    if free < NEEDED_GIB:
        return '%.1f GiB free in %s, but the environment needs %d GiB; free some space.' % (free, ROOT, NEEDED_GIB)
    return None


def venv_python():
    """Return the path of the environment's interpreter."""
    folder = 'Scripts' if os.name == 'nt' else 'bin'
    return os.path.join(VENV, folder, 'python')


def fingerprint():
    """Hash everything that determines what is installed."""
    digest = hashlib.sha256(sys.version.encode())
    for name in SOURCES:
        with open(os.path.join(ROOT, name), 'rb') as file:
            digest.update(file.read())
    return digest.hexdigest()


def is_ready():
    """Whether the environment was created from the current requirements."""
    if not (os.path.exists(STAMP) and os.path.exists(venv_python())):
        return False
    with open(STAMP) as file:
        return file.read() == fingerprint()


def pip(*args):
    """Run pip in the environment; it writes no cache outside the checkout."""
    command = [venv_python(), '-m', 'pip', '--no-cache-dir', '--disable-pip-version-check', 'install']
    command += ['--progress-bar', 'off']
    with tempfile.NamedTemporaryFile() as output:
        ended = threading.Event()
        thread = threading.Thread(target=say_progress, args=(output.name, ended))
        thread.start()
        try:
            subprocess.run(command + list(args), cwd=ROOT, check=True, stdout=output)
        finally:
            ended.set()
            thread.join()


def say_progress(path, ended):
    """Print the last line of a file every :data:`EVERY` seconds until ``ended`` is set."""
    start = time.time()
    while not ended.wait(EVERY):
        with open(path, errors='replace') as file:
            lines = file.read().split('\n')
        last = next((line.strip() for line in reversed(lines) if line.strip()), 'waiting for pip')
        print('      %3.0f s: %s' % (time.time() - start, last[:90]), flush=True)


def torch_pins():
    """Return the pins of torch and torchvision in constraints.txt."""
    with open(CONSTRAINTS) as file:
        pins = [line.split(';')[0].strip() for line in file if line.startswith(('torch==', 'torchvision=='))]
    if len(pins) != 2:
        raise SystemExit('requirements/constraints.txt must pin torch and torchvision; restore both lines')
    return pins


def make(torch_args):
    """Create the environment and install into it, the pinned torch before the rest.

    Unpinned, torch would bring gigabytes of CUDA. torchvision comes from where torch does, since its operators load
    beside the same build alone; what both need follows from the usual index, as other indexes may lack it.
    """
    start = time.time()
    steps = (
        ('creating .venv', lambda: subprocess.run([sys.executable, '-m', 'venv', '--clear', VENV], check=True)),
        # before torch, whose missing requirements pip would complain of
        ('installing what builds packages', lambda: pip('-c', CONSTRAINTS, 'setuptools', 'wheel')),
        (
            'installing the pinned torch and torchvision',
            lambda: pip('--no-deps', *torch_pins(), *torch_args),
        ),
        (
            'installing florence_mm and what it needs',
            lambda: pip('-c', CONSTRAINTS, '--no-build-isolation', '-e', ROOT + '[lite,test]'),
        ),
    )
    for number, (text, step) in enumerate(steps, 1):
        print('[%d/%d] %s (%.0f s so far)' % (number, len(steps), text, time.time() - start), flush=True)
        step()
    # florence_mm.utils.files, which writes all other files, cannot be imported yet
    temporary = STAMP + '.tmp'
    with open(temporary, 'w') as file:
        file.write(fingerprint())
    os.replace(temporary, STAMP)
    print('environment ready after %.0f s' % (time.time() - start))


def main():
    """Check the machine and create the environment unless it is ready; return the exit status.

    0: the environment is ready; 2, with one sentence: something is missing; 130: Ctrl-C.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--torch-args', default='', help='further pip arguments for torch and torchvision')
    args = parser.parse_args()
    try:
        if is_ready():
            print('environment is up to date')
            return 0
        problem = check_machine()
        if problem:
            print('cannot make the environment: ' + problem, file=sys.stderr)
            return 2
        make(args.torch_args.split())
    except subprocess.CalledProcessError as error:
        print(
            'cannot make the environment: the command %s failed with status %d; its message stands above.'
            % (' '.join(error.cmd), error.returncode),
            file=sys.stderr,
        )
        return 2
    except OSError as error:
        print('cannot make the environment: %s; fix that and run the command again.' % error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('stopped before the environment was ready; run the command again to make it.', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
