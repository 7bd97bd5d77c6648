# Captions of the embedded scenes and their pictures found by two towers, which read pixels, and put in order by the
# matching head that UNITER is pretrained with, which reads regions; nothing is trained:
# python tools/test.py configs/uniter/uniter_micro_rerank_large-digits.py \
#     work_dirs/uniter_micro_2xb32-12e_large-digits/epoch_12.pth
_base_ = [
    '../_base_/models/uniter_micro.py',
    '../_base_/models/retriever_coswin-micro.py',
    '../_base_/datasets/large_digit_rerank.py',
    '../_base_/default_runtime.py',
]

model = dict(
    _delete_=True,
    type='florence_mm.RetrievalReranker',
    retriever={{_base_.retriever}},
    matcher={
        **_base_.model,
        'heads': dict(itm=dict(type='florence_mm.FusionITMHead', negatives='data_set', alignment=0.1)),
    },
)
test_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='florence_mm.LoadRegions', folder='data/large_digit_regions/test'),
            *_base_.test_pipeline,
        ]
    )
)
load_from = 'work_dirs/uniter_micro_2xb32-12e_large-digits/epoch_12.pth'
