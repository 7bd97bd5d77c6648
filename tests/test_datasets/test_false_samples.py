"""Images and texts of other samples, drawn from the whole data set."""

import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample

from florence_mm.datasets import WithFalseSamples
from florence_mm.engine.samplers import ResumableSampler
from florence_mm.errors import DataError
from florence_mm.language.labels import text_label


class Rows:
    """Samples whose image says their number; two texts for each image, and one text twice."""

    metainfo = {'classes': ('a',)}  # noqa: RUF012

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, idx):
        number = int(idx)
        text = 'the same' if number in (0, 5) else f'text {number}'
        sample = DataSample(text=text, label_key=text_label(text), metainfo={'img_path': f'{number // 2}.png'})
        return {'inputs': torch.full((3, 2, 2), number, dtype=torch.uint8), 'data_samples': sample}


def test_an_image_is_of_another_sample_of_the_whole_data_set():
    data = WithFalseSamples(Rows(20), texts=3)
    assert len(data) == 20 and data.metainfo == {'classes': ('a',)}
    np.random.seed(0)
    seen = set()
    for _ in range(100):
        packed = data[0]
        false = int(packed['data_samples'].false_inputs[0, 0, 0])
        assert false not in (0, 1, 5) and int(packed['inputs'][0, 0, 0]) == 0  # of another image and text
        texts = packed['data_samples'].false_texts
        assert len(set(texts)) == 3 and not {'the same', 'text 1'} & set(texts)
        seen.add(false)
    assert seen == set(range(20)) - {0, 1, 5}  # not those of a batch


def test_a_seeded_sample_gets_the_same_false_image_after_resuming():
    from florence_mm.engine.dataloading import seed_everything_for_sample

    data = WithFalseSamples(Rows(50))

    def draws(done):
        sampler = ResumableSampler(data, shuffle=True, seed=3)
        order = list(iter(sampler))[done:]
        drawn = []
        for index in order:
            seed_everything_for_sample(index.seed)
            drawn.append((int(index), int(data[index]['data_samples'].false_inputs[0, 0, 0])))
        return drawn

    assert draws(20) == draws(0)[20:]


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(DataError, match='no false sample of sample 0 was found among 2'):
        WithFalseSamples(Rows(2))[0]
    with pytest.raises(ValueError, match='image=False must be True, or texts above 0'):
        WithFalseSamples(Rows(4), image=False)
