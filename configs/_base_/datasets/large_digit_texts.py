# Texts of one to three captions of the scenes of large digits (tools/dataset_converters/prepare_documents.py), for
# language models, which do not see the scenes
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.TextManifest',
        ann_file='data/large_digit_documents/texts.jsonl',
        pipeline=[dict(type='florence_mm.PackImageText')],
    ),
)
