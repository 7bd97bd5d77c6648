# Stage 1 by CLIP's loss: pairs with equal texts are negatives of each other
_base_ = './unicl_coswin-micro_1xb64-200_digit-pairs.py'

model = dict(positives='own_text')
