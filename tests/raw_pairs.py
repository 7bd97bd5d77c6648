"""Raw pairs with planted faults, for tests of curation."""

import io
import json
import struct
import tarfile
import zlib

import cv2
import numpy as np


def picture(seed, size=(96, 80), kind='.jpg'):
    """Bytes of a smooth picture of width and height ``size``."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.imencode(kind, cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC))[1].tobytes()


def bomb():
    """A PNG file of a few bytes whose header promises 40,000 x 40,000 pixels."""

    def chunk(name, data):
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))

    header = struct.pack('>IIBBBBB', 40000, 40000, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


def write_tar(path, members, damage=(), cut=None):
    """Write a tar; the headers of members named in ``damage`` are spoilt, and the file is cut ``cut`` bytes short."""
    buffer = io.BytesIO()
    offsets = {}
    with tarfile.open(fileobj=buffer, mode='w', format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            offsets[name] = tar.offset
            tar.addfile(info, io.BytesIO(data))
    data = bytearray(buffer.getvalue())
    for name in damage:
        data[offsets[name] : offsets[name] + 400] = b'\xa5' * 400
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if cut is None else data[: offsets[cut] + 512 + 10])


def good(number, text=None, **fields):
    """Members of a whole pair."""
    text = f'a picture of thing {number}' if text is None else text
    return [
        (f'{number:04}.jpg', picture(number)),
        (f'{number:04}.json', json.dumps({'caption': text, **fields}).encode()),
    ]


def write_faulty_set(folder, good_ones=6):
    """Write three tars with faults of every kind; returns the number of pairs by the reason that they are planted for.

    The downloader counted each pair of the second tar, one of which a damage has taken whole.
    """
    jpeg, text = picture(900), b'a text'
    faults = {
        'no_image': [('n1.txt', text)],
        'no_text': [('n2.jpg', jpeg)],
        'invalid_text': [('i1.jpg', jpeg), ('i1.txt', b'caf\xe9'), ('i2.jpg', jpeg), ('i2.json', b'{"caption": "cut'),
                         ('i3.jpg', jpeg), ('i3.json', b'{"caption": 7}'),
                         ('i4.jpg', jpeg), ('i4.json', b'{"caption": "\\ud800"}')],
        'blank_text': [('b1.jpg', jpeg), ('b1.txt', b' \n.'), ('b2.jpg', jpeg), ('b2.txt', '\u200b'.encode())],
        'undecodable': [('u1.jpg', b'no picture'), ('u1.txt', text), ('u2.jpg', jpeg[:500]),
                        ('u2.txt', text), ('u3.png', b''), ('u3.txt', text)],
        'bomb': [('z1.png', bomb()), ('z1.txt', text)],
        'too_small': [('s1.png', picture(901, (20, 200), '.png')), ('s1.txt', text)],
        'aspect': [('a1.jpg', picture(902, (400, 50))), ('a1.txt', text)],
    }  # fmt: skip
    write_tar(folder / '00000.tar', [*(m for n in range(good_ones) for m in good(n)), *sum(faults.values(), [])])
    # dotted names are two samples, and members that are not neighbours are one
    apart = [('x.v1.jpg', picture(50)), ('x.v2.jpg', picture(51)), ('x.v1.txt', b'first'), ('x.v2.txt', b'second')]
    members = [*good(100), *good(101), *good(102), *good(103), *good(104), *apart]
    write_tar(folder / '00001.tar', members, damage=['0101.jpg', '0103.jpg', '0103.json'])
    (folder / '00001_stats.json').write_text(json.dumps({'count': 9, 'successes': 7}))
    write_tar(folder / '00002.tar', [*good(200), *good(201), *good(202)], cut='0202.json')
    counts = {name: len({member.split('.')[0] for member, _ in members}) for name, members in faults.items()}
    return {**counts, 'damaged_tar': 2, 'truncated_tar': 1, 'kept': good_ones + 3 + 2 + 2}


def run_here(function, tasks, workers, engine='pool', make_context=None):
    """Stand in for ``run_tasks``: work in this process."""
    context = make_context()
    return (function(task, context) for task in tasks)
