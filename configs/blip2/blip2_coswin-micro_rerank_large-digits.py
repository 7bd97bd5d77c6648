# Retrieval of the embedded scenes by the first stage of BLIP-2: its contrastive head finds candidates, and its matching
# head puts them in order; nothing is trained:
# python tools/test.py configs/blip2/blip2_coswin-micro_rerank_large-digits.py \
#     work_dirs/blip2_coswin-micro_1xb64-8e_large-digits/epoch_8.pth
_base_ = [
    '../_base_/models/blip2_coswin-micro.py',
    '../_base_/datasets/large_digit_rerank.py',
    '../_base_/default_runtime.py',
]

model = dict(
    _delete_=True,
    type='florence_mm.RetrievalReranker',
    data_preprocessor={{_base_.model.data_preprocessor}},
    retriever=None,
    matcher={
        **_base_.model,
        'image_encoder': {**_base_.model.image_encoder, 'init_cfg': None},
        'heads': dict(
            itc=dict(type='florence_mm.FusionITCHead', embed_dims=64, label_smoothing=0.1),
            itm=dict(type='florence_mm.FusionITMHead', negatives='all'),
        ),
    },
)
load_from = 'work_dirs/blip2_coswin-micro_1xb64-8e_large-digits/epoch_8.pth'
