# Retrieval of the embedded scenes of large digits that is only tested, by models that are trained already
_base_ = './large_digit_captions.py'
train_dataloader = val_dataloader = val_evaluator = None
test_evaluator = dict(_delete_=True, type='florence_mm.ImageTextRecall')
# pretraining matches with false pictures of any kind, so what found the candidates helps to order them
test_cfg = dict(type='florence_mm.RerankTestLoop', top_k=16, similarity_weight=1.0)
smoke = dict(optim_wrapper=None)
