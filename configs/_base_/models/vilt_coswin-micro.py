# ViLT on the map of a tower that descends from the quickstart's, for the embedded scenes of large digits (64 pixels)
_base_ = './large-digits_coswin-micro.py'
model = dict(
    type='florence_mm.ViLT',
    data_preprocessor=dict(type='florence_mm.PaddedImageDataPreprocessor'),  # which also prepares false pictures
    hidden_size=96,
    num_layers=4,
    num_heads=4,
    mlp_ratio=2.0,
    patch_size=1,  # of the tower's map, as ViLT's hybrid
    img_size=4,
    max_patches=None,
    drop_rate=0.0,
    max_text_len=32,
    init_std=96**-0.5,
)
