# Captions on COCO (Karpathy's split). Florence's paper has no captions by this model: the head and its settings are
# ours, the rates and the batch are those of METER's fine-tuning
_base_ = [
    '../_base_/models/meter_coswin-h.py',
    '../_base_/datasets/karpathy_coco.py',
    '../_base_/schedules/meter_10e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    heads=dict(
        caption=dict(
            type='florence_mm.FusionCaptionHead', vocab_size=50265, num_beams=5, max_length=20, label_smoothing=0.1
        )
    ),
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/meter_coswin-h_roberta_128xb32-43e_coco-vg-cc-sbu/epoch_43.pth',
    ),
)
train_dataloader = dict(batch_size=16)
# poolers, and what image tokens would read text with, get no gradient
find_unused_parameters = True
