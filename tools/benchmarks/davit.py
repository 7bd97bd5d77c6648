"""Speed of DaViT compared with timm and transformers, on shared weights.

python tools/benchmarks/davit.py [--only NAME] [--rounds N] [--out FILE]
"""

import sys
from collections.abc import Callable
from functools import partial

import torch
from common import Case, Pair, main
from torch import nn

import florence_mm  # noqa: F401  (patches the stack before the peers are imported)
from florence_mm.models.backbones import FlorenceDaViT
from florence_mm.models.checkpoints.formats import convert_state_dict


def _timm() -> tuple[nn.Module, Callable]:
    import timm

    model = timm.create_model('davit_base_fl', num_classes=0, drop_path_rate=0.0)
    return model, model.forward_features


def _transformers() -> tuple[nn.Module, Callable]:
    from transformers import Florence2VisionConfig
    from transformers.models.florence2.modeling_florence2 import Florence2VisionBackbone

    model = Florence2VisionBackbone(Florence2VisionConfig(drop_path_rate=0.0))
    return model, lambda x: model(x).last_hidden_state


def _base(peer: str, side: int, batch: int = 1, train: bool = False) -> Pair:
    """Florence-2-base's image tower without stochastic depth; in training both passes."""
    torch.manual_seed(0)
    theirs, peer_call = {'timm': _timm, 'transformers': _transformers}[peer]()
    for name, parameter in theirs.named_parameters():  # those of transformers are of std 0.02, also of convolutions
        nn.init.normal_(parameter, 1.0 if 'norm' in name and parameter.ndim == 1 else 0.0, 0.03)
    ours = FlorenceDaViT('base', drop_path_rate=0.0)
    state = {key: value.clone() for key, value in theirs.state_dict().items() if not key.startswith('head.')}
    ours.load_state_dict(convert_state_dict(state)[1])
    for model in (ours, theirs):
        model.train(train)
    x = torch.randn(batch, 3, side, side)
    calls = (lambda: ours(x)[0]), (lambda: peer_call(x))
    if not train:
        return Pair(*(torch.inference_mode()(call) for call in calls))

    def step(model: nn.Module, call: Callable) -> list[torch.Tensor]:
        model.zero_grad(set_to_none=True)
        out = call()
        out.square().mean().backward()
        return [out, model.get_parameter(next(name for name, _ in model.named_parameters())).grad]

    return Pair(*(partial(step, model, call) for model, call in zip((ours, theirs), calls, strict=True)))


def cases() -> list[Case]:
    """The comparisons of this file, with the bars the project set itself."""
    return [
        Case('davit_base_224_infer_vs_timm', 1.15, partial(_base, 'timm', 224), rounds=15),
        Case('davit_base_224_infer_vs_transformers', 1.15, partial(_base, 'transformers', 224), rounds=15),
        Case('davit_base_768_infer_vs_timm', 1.0, partial(_base, 'timm', 768), rounds=5),
        Case('davit_base_768_infer_vs_transformers', 1.0, partial(_base, 'transformers', 768), rounds=5),
        Case('davit_base_224_train_vs_timm', 1.0, partial(_base, 'timm', 224, 1, True), rounds=9),
    ]


if __name__ == '__main__':
    sys.exit(main(cases()))
