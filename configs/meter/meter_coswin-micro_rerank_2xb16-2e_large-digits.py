# Captions of the embedded scenes and their pictures found by two towers and put in order by METER:
# bash tools/dist_train.sh configs/meter/meter_coswin-micro_rerank_2xb16-2e_large-digits.py 2, then tools/dist_test.sh
_base_ = [
    '../_base_/models/reranker_meter-coswin-micro.py',
    '../_base_/datasets/large_digit_captions.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    retriever=dict(
        image_encoder=dict(init_cfg=None),
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/unicl_coswin-micro_2xb32-5e_large-digits/epoch_5.pth',
        ),
    ),
    matcher=dict(
        image_encoder=dict(init_cfg=None),
        text_encoder=dict(tower=dict(init_cfg=None)),
        heads=dict(itm=dict(type='florence_mm.FusionITMHead')),
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/meter_coswin-micro_2xb32-2e_large-digits/epoch_2.pth',
        ),
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.2, convert_to_iter_based=True),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=True, begin=0.2, end=2, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=2)
train_dataloader = dict(batch_size=16)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
# a validation would see the two towers, which do not learn
val_dataloader = val_evaluator = val_cfg = None
test_evaluator = dict(_delete_=True, type='florence_mm.ImageTextRecall')
test_cfg = dict(type='florence_mm.RerankTestLoop', top_k=16)
