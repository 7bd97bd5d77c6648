# Zero-shot text-to-video retrieval on MSR-VTT 1K-A (Florence, section 3.8; R@1 37.6, R@5 63.8, R@10 72.6 in the paper):
# python tools/test.py CONFIG CHECKPOINT, the checkpoint being that of unicl_coswin-h_512xb48-80k_fld900m-384
_base_ = [
    '../_base_/models/unicl_video-coswin-h.py',
    '../_base_/datasets/msrvtt_1ka.py',
    '../_base_/default_runtime.py',
]

# nothing is trained
train_dataloader = val_dataloader = val_evaluator = None
test_cfg = dict()
# under --smoke clips are short and small
smoke = dict(
    image_size=64,
    optim_wrapper=None,
    test_dataloader=dict(dataset=dict(pipeline=dict(UniformSample=dict(clip_len=4)))),
)
