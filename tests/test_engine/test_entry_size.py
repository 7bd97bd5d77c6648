"""Parameters and FLOPs in the metafiles are those of the configs, counted without allocating a model."""

import resource

from mmengine.registry import DefaultScope

from florence_mm.config.load import load_config
from florence_mm.config.metafiles import TASKS, model_entries
from florence_mm.config.pretrained import drop_pretrained
from florence_mm.engine.complexity import count_macs
from florence_mm.engine.entry_size import EntrySize, entry_size
from florence_mm.engine.example_calls import clip_size, example_calls
from florence_mm.registry import MODELS


def test_metafiles_state_the_size_of_every_model():
    counted, wrong, without = {}, {}, set()
    for name, entry in model_entries().items():
        cfg = load_config(entry.config)
        drop_pretrained(cfg.model, 'model')
        if entry.macs_input is None:
            without.add(cfg.model.type.rpartition('.')[2])
            continue
        # many configs train the same model on other data
        key = f'{cfg.model} {clip_size(cfg)} {entry.macs_input}'
        if key not in counted:
            counted[key] = entry_size(entry)
        if counted[key] != EntrySize(entry.parameters, entry.macs, entry.macs_input):
            wrong[name] = counted[key]
    assert wrong == {}
    assert without == {'PerceiverMaskedLM', 'UNITER'}  # which read bytes, and regions


def test_every_entry_names_a_task():
    assert {entry.task for entry in model_entries().values()} <= set(TASKS)


def count_with_values(name, shape):
    cfg = load_config(model_entries()[name].config)
    drop_pretrained(cfg.model, 'model')
    with DefaultScope.overwrite_default_scope('florence_mm'):
        model = MODELS.build(cfg.model)
        _, call = next(iter(example_calls(model, shape, clip_size(cfg))))
        return count_macs(model, call)['']


def test_counts_without_values_are_those_with_values():
    for name, shape in (
        ('zero-shot_coswin-micro_fpn_dyhead_2xb4-3e_scenes', (128, 128)),
        ('unicl_video-coswin-micro_2xb20-4e_clips', (64, 64)),
        ('meter_coswin-micro_2xb32-2e_large-digits', (64, 64)),
    ):
        assert count_with_values(name, shape) == model_entries()[name].macs


def test_a_larger_input_costs_in_proportion():
    entry = model_entries()['unicl_coswin-micro_1xb64-36e_digits']
    small, large = entry_size(entry, (32, 32)), entry_size(entry, (64, 64))
    assert large.call == 'one image of 64 x 64' and large.parameters == small.parameters == 999535
    # four times the pixels; the projection of the one pooled vector is not repeated
    assert 3.9 < large.macs / small.macs <= 4


def test_nothing_is_allocated():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    entry_size(model_entries()['unicl_coswin-h_512xb48-1m_fld900m'])  # 3.6 GB of weights
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
