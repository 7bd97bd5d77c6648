"""A store of files that fails, stalls, cuts or changes what it gives, as a test says."""

import os
import time

import fsspec
from fsspec.implementations.local import LocalFileSystem


class Broken(LocalFileSystem):
    """A store over local files that breaks as its ``plan`` says: a fault for each opening of a tar, in order."""

    protocol = ('broken',)
    plan = ()  # of 'error', 'stall', 'cut', 'change', 'none'; beyond its end all goes well
    log = None

    @classmethod
    def begin(cls, monkeypatch, log, plan=()):
        fsspec.register_implementation('broken', cls, clobber=True)
        monkeypatch.setattr(cls, 'plan', plan)
        monkeypatch.setattr(cls, 'log', log)
        log.touch()

    @classmethod
    def _strip_protocol(cls, path):
        return str(path).removeprefix('broken://')

    def _open(self, path, mode='rb', **kwargs):
        file = super()._open(path, mode, **kwargs)
        if not path.endswith('.tar'):
            return file
        with Broken.log.open('a') as log:
            log.write(f'{os.path.basename(path)}\n')  # noqa: PTH119
        number = len(Broken.log.read_text().splitlines()) - 1
        fault = Broken.plan[number] if number < len(Broken.plan) else 'none'
        if fault == 'error':
            raise ConnectionError('the store is\nbusy')
        return _File(file, fault)


class _File:
    def __init__(self, file, fault):
        self.file, self.fault, self.count = file, fault, 0

    def read(self, size=-1):
        data = self.file.read(500)
        self.count += 1
        if self.fault == 'stall' and self.count == 3:
            time.sleep(30)
        if self.fault == 'slow':
            time.sleep(0.05)
        if self.fault == 'cut' and self.count > 3:
            return b''
        if self.fault == 'change' and self.count == 2:
            data = data[::-1]
        return data

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.file.close()
