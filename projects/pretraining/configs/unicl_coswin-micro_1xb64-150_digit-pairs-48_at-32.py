# The last stage without what it changes: the resolution stays
_base_ = './unicl_coswin-micro_1xb64-150_digit-pairs-48.py'
from florence_mm.config.image_size import set_image_size

set_image_size(_base_, 32)
model = dict(image_encoder=dict(img_size=32, window_size=4))
