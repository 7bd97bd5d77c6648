# Questions about the embedded scenes, from the pretrained UNITER:
# bash tools/dist_train.sh configs/uniter/uniter_micro_2xb64-6e_large-digit-vqa.py 2
_base_ = [
    '../_base_/models/uniter_micro.py',
    '../_base_/datasets/large_digit_questions.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    heads=dict(
        vqa=dict(
            type='florence_mm.FusionVQAHead',
            answers='data/large_digit_questions/answers.txt',
            width=192,
            act_first=True,
        )
    ),
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/uniter_micro_2xb32-12e_large-digits/epoch_12.pth',
    ),
)
train_pipeline = [
    dict(type='florence_mm.LoadRegions', folder='data/large_digit_regions/train'),
    dict(type='florence_mm.PackVQA'),
]
test_pipeline = [
    dict(type='florence_mm.LoadRegions', folder='data/large_digit_regions/test'),
    dict(type='florence_mm.PackVQA'),
]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
# a new head on what is pretrained: the head five times as fast
optim_wrapper = dict(
    optimizer=dict(lr=1.5e-3),
    paramwise_cfg=dict(orthogonal=('text_stack.layers', 'region_embeddings'), lr_mult=dict(heads=5)),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.2, convert_to_iter_based=True),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=True, begin=0.2, end=6, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=6)
# no region is hidden, so that the vector of hidden ones gets no gradient
find_unused_parameters = True
