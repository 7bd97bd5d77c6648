# The quickstart's towers on the same crops by two processes, with which METER's embedded task begins (docs/meter.md):
# bash tools/dist_train.sh configs/unicl/unicl_coswin-micro_2xb64-4e_scene-crops.py 2
_base_ = ['./unicl_coswin-micro_1xb64-22e_digits.py']

load_from = 'work_dirs/quickstart/epoch_22.pth'
train_dataloader = dict(dataset=dict(ann_file='data/scene_crops/train.jsonl'))
val_dataloader = dict(dataset=dict(ann_file='data/scene_crops/test.jsonl'))
test_dataloader = val_dataloader
val_evaluator = [dict(type='florence_mm.ZeroShotAccuracy', topk=(1, 5))]
test_evaluator = val_evaluator
# in 4 epochs the score that AdamW alone reaches in 10
optim_wrapper = dict(optimizer=dict(weight_decay=0.1, share=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0.5, end=4, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=4, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=4))
auto_scale_lr = dict(base_batch_size=128)
