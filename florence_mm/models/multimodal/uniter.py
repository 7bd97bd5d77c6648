"""UNITER, universal image-text representations (arXiv 1909.11740): BERT over words and regions of an image.

Regions come from a detector: a feature and seven numbers of position each (section 3.1;
``UNITER/model/model.py``). In a step one task is trained, drawn by weights (section 3.2).

Shape legend: ``U`` images, ``R`` regions, ``B`` samples, ``T`` text tokens, ``F`` channels of region features, ``C``
hidden size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from florence_mm.models.base import check_text_sizes
from florence_mm.models.layers.initialisation import init_bert_weights
from florence_mm.models.layers.token_layout import TokenLayout
from florence_mm.models.text.stack import TextStack
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch
from florence_mm.ops.attention import dropout
from florence_mm.ops.collectives import Peers
from florence_mm.registry import MODELS

from .single_stream import SingleStream, with_mask

#: Left, top, right, bottom, width, height, area, as fractions of the image.
POSITION_DIMS = 7
#: Weights by which the task of a step is drawn, by names of heads; those of UNITER's pretraining on COCO and VG.
TASKS = {'itm': 2, 'mlm': 2, 'mrfr': 1, 'mrc': 1}


class RegionEmbeddings(nn.Module):
    """Embed regions: ``LN(LN(W f) + LN(W p) + type)``; a hidden feature f is a mask vector.

    Args:
        feature_dims: F.
        hidden_size: C.
        layer_norm_eps: epsilon of the layer norms.
        drop_rate: dropout behind the last one.
    """

    def __init__(self, feature_dims: int, hidden_size: int, layer_norm_eps: float, drop_rate: float) -> None:
        super().__init__()
        self.img_linear = nn.Linear(feature_dims, hidden_size)
        self.img_layer_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.pos_linear = nn.Linear(POSITION_DIMS, hidden_size)
        self.pos_layer_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.mask_embedding = nn.Parameter(torch.zeros(feature_dims))
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.drop_rate = drop_rate

    def forward(self, features: Tensor, positions: Tensor, kind: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Embed ``features (U, R, F)`` at ``positions (U, R, 7)`` with the type ``kind (C,)`` to ``(U, R, C)``."""
        if hidden is not None:
            features = torch.where(hidden[..., None].to(features.device), self.mask_embedding.to(features), features)
        x = self.img_layer_norm(self.img_linear(features)) + self.pos_layer_norm(self.pos_linear(positions)) + kind
        return dropout(self.LayerNorm(x), self.drop_rate if self.training else 0.0)


@MODELS.register_module()
class UNITER(SingleStream):
    """UNITER, a single-stream model of words and regions: a reader and fuser that reads regions.

    Its inputs are not pictures but what :class:`LoadRegions` reads and :class:`RegionDataPreprocessor` pads.

    Args:
        tokenizer: the :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer` (or its config); BERT's cased one
            in UNITER.
        feature_dims: F, channels of region features; 2,048 in UNITER.
        text: arguments of :class:`~florence_mm.models.text.stack.TextStack`, whose layers read words and regions; by
            default BERT-base: 12 layers of width 768.
        heads: heads (or their configs) by name, such as ``itm``, ``mlm``, ``mrfr`` and ``mrc`` in pretraining.
        tasks: weights of heads by name, of which one is drawn in each training step, and never one of weight 0; heads
            not named here are trained in every step. None: UNITER's, :data:`TASKS`.
        max_text_len: longest text in tokens, start and end included; 60 in UNITER.
        data_preprocessor: see mmengine; by default :class:`RegionDataPreprocessor`.
        init_cfg: see mmengine.

    Raises:
        ValueError: sizes do not fit together, a weight is below 0, or the weights of all heads are 0.
    """

    def __init__(
        self,
        tokenizer: dict | TextTokenizer,
        feature_dims: int = 2048,
        text: Mapping[str, Any] | None = None,
        heads: Mapping[str, dict | nn.Module] | None = None,
        tasks: Mapping[str, float] | None = None,
        max_text_len: int = 60,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        text = {'hidden_size': 768, 'drop_rate': 0.1, 'layer_norm_eps': 1e-12, 'init_std': 0.02, **(text or {})}
        data_preprocessor = data_preprocessor or {'type': 'RegionDataPreprocessor'}
        super().__init__(tokenizer, text['hidden_size'], max_text_len, data_preprocessor, init_cfg)
        if feature_dims < 1:
            raise ValueError(f'feature_dims of UNITER is {feature_dims}; give the channels of the region features')
        self.tasks = dict(TASKS if tasks is None else tasks)
        if any(not weight >= 0 for weight in self.tasks.values()):
            raise ValueError(f'the task weights of UNITER are {self.tasks}; give numbers from 0')
        self.feature_dims = feature_dims
        self.text_stack = TextStack(**{'vocab_size': self.tokenizer.vocab_size, **text})
        if self.text_stack.embeddings.token_type_embeddings is None:
            raise ValueError('num_types of the text stack is 0, and UNITER tells words from regions by them; give 2')
        check_text_sizes(self.text_stack, self.tokenizer.vocab_size, max_text_len, 'max_text_len')
        self.region_embeddings = RegionEmbeddings(
            feature_dims, self.hidden_size, text['layer_norm_eps'], text['drop_rate']
        )
        for part in (self.region_embeddings, self.pooler):
            init_bert_weights(part, text['init_std'])
        self.add_heads(heads, text['init_std'])
        if len(self.heads) and all(self.tasks.get(name) == 0 for name in self.heads):
            raise ValueError(f'the task weights of UNITER are 0 for all heads ({", ".join(self.heads)}); raise one')

    @property
    def word_embeddings(self) -> nn.Embedding:
        """Word embeddings, to which heads may be tied."""
        return self.text_stack.embeddings.word_embeddings

    # --- reading ------------------------------------------------------------------------------------------------------

    def encode_image(self, inputs: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Embed regions to tokens ``(U, R, C + 1)``, whose last channel is 1 where a region is real.

        Args:
            inputs: ``(U, R, F + 7)``, features and positions, or ``(U, R, F + 8)`` with a last channel that is 1 at
                real regions and 0 at padding.
            hidden: ``(U, R)`` bool, True where the feature is hidden; None: nowhere.

        Raises:
            ValueError: the inputs have other channels.
        """
        width = self.feature_dims + POSITION_DIMS
        if inputs.ndim != 3 or inputs.shape[2] not in (width, width + 1):
            raise ValueError(
                f'UNITER got inputs of shape {tuple(inputs.shape)} and has feature_dims={self.feature_dims}; give '
                f'regions (U, R, {width}) or (U, R, {width + 1}), as LoadRegions and RegionDataPreprocessor make them'
            )
        features, positions, real = inputs.split([self.feature_dims, POSITION_DIMS, inputs.shape[2] - width], 2)
        kind = self.text_stack.embeddings.token_type_embeddings.weight[1]
        x = self.region_embeddings(features, positions, kind, hidden)
        return with_mask(x, real[..., 0] > 0.5 if real.shape[2] else None)

    def region_features(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Take features ``(U, R, F)`` out of inputs, and which of them are real, ``(U, R)`` bool."""
        real = inputs[..., self.feature_dims + POSITION_DIMS :]
        real = real[..., 0] > 0.5 if real.shape[2] else torch.ones_like(inputs[..., 0], dtype=torch.bool)
        return inputs[..., : self.feature_dims], real

    def feature_projection(self) -> nn.Linear:
        """The layer that projects features of regions, F to C."""
        return self.region_embeddings.img_linear

    def encode_tokens(self, tokens: TokenBatch) -> Tensor:
        """Embed ids ``(B, T)`` to ``(B, T, C)``, as BERT; zeros at padding."""
        x, layout = self.text_stack.embed(tokens.input_ids, tokens.mask)
        return layout.pad(x)

    def run(self, x: Tensor, layout: TokenLayout) -> Tensor:
        """Apply BERT's layers to packed tokens of pairs, ``(N, C)`` to ``(N, C)``."""
        return self.text_stack.run(x, layout)

    # --- training -----------------------------------------------------------------------------------------------------

    def heads_of_step(self) -> list[nn.Module]:
        """Return the heads that are trained in one step: that of the drawn task, and all that are no task."""
        named = [name for name in self.heads if self.tasks.get(name, 0) > 0]
        chosen = self._draw_task(named) if len(named) > 1 else next(iter(named), None)
        return [head for name, head in self.heads.items() if name == chosen or name not in self.tasks]

    def _draw_task(self, named: Sequence[str]) -> str:
        """Draw the task of a step, the same in all processes: that of the first."""
        drawn = torch.rand(1).to(self.word_embeddings.weight.device)
        ends = torch.tensor([self.tasks[name] for name in named], dtype=torch.float32).cumsum(0)
        place = float(Peers().gather_rows(drawn)[0]) * float(ends[-1])
        return named[min(int((ends <= place).sum()), len(named) - 1)]
