"""Code in an interpreter that has imported torch and nothing of OpenMMLab or ours.

Importing torch takes seconds: one process, which this file is when run, does it once and forks for each piece of code.
"""

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path


class FreshProcesses:
    """``run(code)`` gives a finished process, with what it wrote, like :func:`subprocess.run`."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, code: str) -> subprocess.CompletedProcess:
        with tempfile.TemporaryDirectory() as folder:
            files = [str(Path(folder) / name) for name in ('stdout', 'stderr')]
            self.server.stdin.write(json.dumps([textwrap.dedent(code), files]) + '\n')
            self.server.stdin.flush()
            status = int(self.server.stdout.readline())
            return subprocess.CompletedProcess(code, status, *(Path(file).read_text() for file in files))

    def close(self) -> None:
        # an end of the pipe may live on in a fork, so its closing says nothing
        self.server.stdin.write('null\n')
        self.server.stdin.close()
        self.server.wait(timeout=60)


def serve() -> None:
    """Fork for each line of the standard input; writes how the fork ended."""
    import torch.distributed.optim  # noqa: F401  (mmengine's optimizers import it)

    for line in sys.stdin:
        found = json.loads(line)
        if found is None:
            return
        code, files = found
        child = os.fork()
        if child == 0:
            for number, file in enumerate(files, 1):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
            # its end is an interpreter's own: traceback, functions of atexit, exit status
            exec(compile(code, '<test>', 'exec'), {'__name__': '__main__'})
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == '__main__':
    sys.path[0] = ''  # as of `python -c`: not the folder of this file
    serve()
