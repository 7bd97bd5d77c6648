# CoSwin-H for clips of 384 pixels. Windows have the image model's height and width at that size; their numbers of steps
# are ours: the paper has small windows early and large ones late and gives no sizes. A clip of 32 frames keeps all
# activations: 42 GiB (tools/analysis_tools/get_memory.py)
_base_ = './video_coswin-t.py'

model = dict(
    backbone=dict(
        arch='huge',
        window_size=[(2, 12, 12), (4, 12, 12), (8, 12, 12), (8, 12, 12)],
        drop_path_rate=0.5,
    ),
    cls_head=dict(in_channels=2048, label_smooth_eps=0.1),
    # of the twelve views of a test video, as many go through the model at once; batches of one video alone
    test_cfg=dict(max_testing_views=2),
)
