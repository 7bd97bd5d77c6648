"""Bad inputs: class names, answers and prompt templates."""

from collections.abc import Callable
from pathlib import Path

from florence_mm.language.answers import read_answers
from florence_mm.language.class_names import ClassNames, load_class_names
from florence_mm.language.prompts import get_class_names, get_templates

from .case import BadInput, call

AREA = 'class names, answers, templates'
PETS = ['cat', 'dog']
FILES = {
    'Latin-1': (b'caf\xe9\ntea\n', ('UTF-8', 'byte 4', '0xe9')),
    'UTF-16': ('cat\ndog\n'.encode('utf-16'), 'UTF-8'),
    'bytes of a picture': (b'\x89PNG\r\n\x1a\n' + bytes(range(256)), 'UTF-8'),
    'NUL characters': (b'cat\0dog\n', 'NUL'),
    'nothing': (b'', 'is empty'),
    'blank lines alone': (b'\n  \n\t\n', 'is empty'),
    'a byte-order mark alone': (b'\xef\xbb\xbf', 'is empty'),
}
READABLE = {
    'a byte-order mark': b'\xef\xbb\xbfcat\ndog\n',
    'lines of Windows': b'cat\r\ndog\r\n',
    'lines of an old Macintosh': b'cat\rdog\r',
    'blanks around names and empty lines between': b'  cat \n\n\tdog',
}


def _file(read: Callable[[str], list[str]], content: bytes) -> Callable[[Path], list[str]]:
    def run(folder: Path) -> list[str]:
        (folder / 'names.txt').write_bytes(content)
        return read(str(folder / 'names.txt'))

    return run


def _class_of(names: list, value: object) -> Callable[[Path], int]:
    return lambda folder: ClassNames(names).index(value)


def cases() -> list[BadInput]:
    rows = []
    for kind, read in (('answers', read_answers), ('class names', load_class_names)):
        file = f'a file of {kind}'
        rows += [BadInput(f'{file} with {words}', _file(read, data), says) for words, (data, says) in FILES.items()]
        rows += [BadInput(f'{file} with {words}', _file(read, data), gives=PETS) for words, data in READABLE.items()]
        rows += [
            BadInput(
                f'{file} that is a folder',
                lambda folder, read=read: read(str(folder)),
                'make it' if read is read_answers else 'neither a file',
            ),
            BadInput(f'{file} that is missing', call(read, 'no.txt'), 'no.txt'),
            BadInput(f'{file} whose path has a NUL', call(read, 'a\0b'), r'a\x00b'),
            BadInput(f'{file} with U+2028 in a name', _file(read, 'a\u2028b\ncat'.encode()), gives=['a\u2028b', 'cat']),
        ]
    same = _file(read_answers, b'two dogs\n2 dogs\n')
    rows.append(BadInput('two answers that are one', same, ('2 dogs', 'two dogs')))
    for value in ({'cat': 0}, 7, True, 1.5, [], ()):
        rows.append(BadInput(f'class names are {value!r}', call(load_class_names, value), 'classes'))
    for value in (None, 3, '', '  ', ['cat'], 1.5):
        rows.append(BadInput(f'one class name is {value!r}', call(ClassNames, ['cat', value]), 'class 1'))
    for value in (5, -1, True, None, 1.0, 'cow', '', ['cat']):
        rows.append(BadInput(f'the class {value!r} of two', _class_of(PETS, value), 'class'))
    rows.append(BadInput('a class name in other letters', _class_of(['cat', 'Dog'], 'DOG'), gives=1))
    rows.append(BadInput('a class that has a twin', _class_of(['Cat', 'cat'], 'cat'), '[0, 1]'))
    for value in ('photo', [], ['a photo'], ['{} and {}'], ['{0}'], ['{'], [None], [7], 7, None, {'{}': 1}):
        rows.append(BadInput(f'templates are {value!r}', call(get_templates, value), 'template'))
    rows.append(BadInput('an unknown data set', call(get_class_names, 'coco'), ("'coco'", 'digits')))
    return rows
