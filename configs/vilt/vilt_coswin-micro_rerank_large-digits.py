# Captions of the embedded scenes and their pictures found by two towers and put in order by the matching head that ViLT
# is pretrained with; nothing is trained:
# python tools/test.py configs/vilt/vilt_coswin-micro_rerank_large-digits.py \
#     work_dirs/vilt_coswin-micro_2xb32-2e_large-digits/epoch_2.pth
_base_ = [
    '../_base_/models/vilt_coswin-micro.py',
    '../_base_/models/retriever_coswin-micro.py',
    '../_base_/datasets/large_digit_rerank.py',
    '../_base_/default_runtime.py',
]

model = dict(
    _delete_=True,
    type='florence_mm.RetrievalReranker',
    data_preprocessor={{_base_.model.data_preprocessor}},
    retriever={{_base_.retriever}},
    matcher={
        **_base_.model,
        'image_encoder': {**_base_.model.image_encoder, 'init_cfg': None},
        'heads': dict(itm=dict(type='florence_mm.FusionITMHead', negatives='data_set', alignment=0.1)),
    },
)
load_from = 'work_dirs/vilt_coswin-micro_2xb32-2e_large-digits/epoch_2.pth'
