# Retrieval on COCO (section 4.1; configs/retrieval_coco.yaml of the public code): contrast and matching at 384 pixels,
# 6 epochs, 1e-5, captions of one picture are positives, negatives come from all processes; the contrastive head finds
# 256 candidates, which the matching head puts in order
_base_ = [
    '../_base_/models/blip_vit-b-16.py',
    '../_base_/datasets/karpathy_coco.py',
    '../_base_/schedules/blip_finetune.py',
    '../_base_/default_runtime.py',
]
from florence_mm.config.pick import replace_step

replace_step(
    _base_.train_dataloader,
    'Resize',
    dict(type='florence_mm.RandomResizedCrop', scale=384, crop_ratio_range=(0.5, 1.0)),
    dict(type='mmcv.RandomFlip', prob=0.5),
)
model = dict(
    _delete_=True,
    type='florence_mm.RetrievalReranker',
    data_preprocessor={{_base_.model.data_preprocessor}},
    retriever=None,
    matcher=dict(
        type='florence_mm.BLIP',
        image_encoder={**_base_.model.image_encoder, 'img_size': 384},
        tokenizer={{_base_.model.tokenizer}},
        text={{_base_.model.text}},
        heads=dict(
            itc=dict(
                type='florence_mm.FusionITCHead',
                positives='equal_images',
                momentum=0.995,
                queue_size=57600,
                alpha_steps=4428,  # of two epochs of 566,747 captions
            ),
            itm=dict(type='florence_mm.FusionITMHead', negatives='all'),
        ),
        max_text_len=35,
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/blip_vit-b-16_32xb90-20e_coco-vg-cc-sbu/epoch_20.pth',
        ),
    ),
)
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=0, end=6)]
train_cfg = dict(max_epochs=6)
val_evaluator = dict(_delete_=True, type='florence_mm.ImageTextRecall', merge_equal_texts=False)
test_evaluator = dict(_delete_=True, type='florence_mm.ImageTextRecall', merge_equal_texts=False)
test_cfg = dict(type='florence_mm.RerankTestLoop', top_k=256)
# self-attention of captions gets no gradient
find_unused_parameters = True
smoke = dict(
    model=dict(
        _delete_=True,
        matcher=dict(
            image_encoder={{_base_.smoke.model.image_encoder}},
            text={{_base_.smoke.model.text}},
            heads=dict(itc=dict(queue_size=16)),
        ),
    ),
    train_dataloader=dict(batch_size=8),
)
