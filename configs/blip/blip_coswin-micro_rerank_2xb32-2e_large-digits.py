# Retrieval of the embedded scenes: the contrastive head finds candidates, which the matching head puts in order:
# bash tools/dist_train.sh configs/blip/blip_coswin-micro_rerank_2xb32-2e_large-digits.py 2, then tools/dist_test.sh
_base_ = [
    '../_base_/models/blip_coswin-micro.py',
    '../_base_/datasets/large_digit_captions.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    _delete_=True,
    type='florence_mm.RetrievalReranker',
    data_preprocessor={{_base_.model.data_preprocessor}},
    retriever=None,
    matcher=dict(
        type='florence_mm.BLIP',
        image_encoder={**_base_.model.image_encoder, 'init_cfg': None},
        image_pool='mean',
        tokenizer={{_base_.model.tokenizer}},
        text={{_base_.model.text}},
        heads=dict(
            itc=dict(type='florence_mm.FusionITCHead', embed_dims=64, momentum=0.99, queue_size=640),
            itm=dict(type='florence_mm.FusionITMHead', negatives='all'),
        ),
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/blip_coswin-micro_2xb32-12e_large-digits/epoch_12.pth',
        ),
    ),
)
optim_wrapper = dict(
    optimizer=dict(lr=5e-4), paramwise_cfg=dict(_delete_=True, orthogonal=('image_encoder', 'text_encoder'))
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.2, convert_to_iter_based=True),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=True, begin=0.2, end=2, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=2)
train_dataloader = dict(batch_size=32)
val_dataloader = val_evaluator = val_cfg = None
test_evaluator = dict(_delete_=True, type='florence_mm.ImageTextRecall')
test_cfg = dict(type='florence_mm.RerankTestLoop', top_k=16, similarity_weight=1.0)
# self-attention of captions gets no gradient
find_unused_parameters = True
