# Retrieval on COCO (Karpathy's split) in two steps. The paper's retrieval is that of the two towers alone; here METER's
# matching head puts their best 128 in order. Fine-tuned on matching with METER's rates, batch and size
_base_ = [
    '../_base_/models/reranker_meter-coswin-h.py',
    '../_base_/datasets/karpathy_coco.py',
    '../_base_/schedules/meter_10e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    matcher=dict(
        heads=dict(itm=dict(type='florence_mm.FusionITMHead')),
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/meter_coswin-h_roberta_128xb32-43e_coco-vg-cc-sbu/epoch_43.pth',
        ),
    )
)
train_dataloader = dict(batch_size=16)
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, lr_mult={'matcher.cross_modal': 5, 'matcher.heads': 5}))
# a validation would see the two towers, which do not learn
val_dataloader = val_evaluator = val_cfg = None
test_evaluator = dict(_delete_=True, type='florence_mm.ImageTextRecall', merge_equal_texts=False)
test_cfg = dict(type='florence_mm.RerankTestLoop', top_k=128)
