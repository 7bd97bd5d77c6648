"""GIT, a generative image-to-text transformer (arXiv 2205.14100), whose image encoder is Florence's.

An image encoder and one stack of text layers: image tokens stand before the text and see each other; a token of the
text sees them and the text before it (section 3.1). The only loss is that of the next token; a question is a text that
is given and not predicted. Several frames of a video are encoded one by one, each with a vector of its own (section
3.1); their tokens stand in a row.

Shape legend: ``U`` images, ``B`` texts, ``F`` frames, ``S`` image tokens (of all frames), ``T`` text tokens, ``C``
hidden size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from florence_mm.models.base import build_part, check_text_sizes, check_width
from florence_mm.models.generation.state import WriterState
from florence_mm.models.layers.initialisation import init_bert_weights
from florence_mm.models.text.stack import StackMemory, TextStack
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch
from florence_mm.registry import MODELS

from .base import VisionLanguageModel
from .batch import as_tokens, last_output, memory_of_rows

#: GIT's text layers, which start from random weights.
_STACK = {'num_layers': 6, 'max_positions': 1024, 'num_types': 0, 'embed_norm_eps': 1e-8}


@MODELS.register_module()
class GIT(VisionLanguageModel):
    """GIT, a model that writes; it implements the protocols reader and writer.

    Args:
        image_encoder: backbone (or its config), as of :class:`METER`: a map ``(U, C_v, H, W)``, or tokens
            ``(U, N, C_v)`` as of ``CLIPVisionTower(out_type='raw')``.
        tokenizer: the :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer` (or its config).
        text: arguments of :class:`~florence_mm.models.text.stack.TextStack`; by default GIT's, 6 layers of width 768.
        heads: heads (or their configs) by name, such as ``dict(caption=dict(type='FusionCaptionHead', tied=True,
            transform=False))``.
        cross_attention: the text attends to image tokens by cross-attention in each layer, and image tokens are not
            part of the stack (section 4.4 of the paper, which finds it better with little data).
        num_frames: most frames of a video; 6 in the paper. 0: images alone.
        projection_eps: epsilon of the layer norm behind the projection of image tokens.
        max_text_len: longest text in tokens, start and end included; 40 in GIT.
        data_preprocessor: see mmengine; by default :class:`ImageTextDataPreprocessor`.
        init_cfg: see mmengine.

    Raises:
        ValueError: the parts do not fit together.
    """

    def __init__(
        self,
        image_encoder: dict | nn.Module,
        tokenizer: dict | TextTokenizer,
        text: Mapping[str, Any] | None = None,
        heads: Mapping[str, dict | nn.Module] | None = None,
        cross_attention: bool = False,
        num_frames: int = 0,
        projection_eps: float = 1e-5,
        max_text_len: int = 40,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        text = {**_STACK, 'hidden_size': 768, **(text or {})}
        super().__init__(tokenizer, text['hidden_size'], max_text_len, data_preprocessor, init_cfg)
        self.image_encoder = build_part(image_encoder)
        check_width(self.image_encoder, 'num_features', 'GIT')
        if num_frames < 0:
            raise ValueError(f'num_frames is {num_frames}; give the most frames of a video, or 0 for images alone')
        width, self.cross_attention = self.image_encoder.num_features, cross_attention
        self.text_stack = TextStack(
            **{'vocab_size': self.tokenizer.vocab_size, **text, 'cross_attention': cross_attention}
        )
        check_text_sizes(self.text_stack, self.tokenizer.vocab_size, max_text_len, 'max_text_len')
        self.image_projection = nn.Sequential(
            nn.Linear(width, self.hidden_size), nn.LayerNorm(self.hidden_size, eps=projection_eps)
        )
        init_bert_weights(self.image_projection, text.get('init_std', 0.02))
        self.frame_embeddings = nn.Parameter(torch.zeros(num_frames, width)) if num_frames else None
        self.add_heads(heads, text.get('init_std', 0.02))

    @property
    def word_embeddings(self) -> nn.Embedding:
        """Word embeddings, to which heads may be tied."""
        return self.text_stack.embeddings.word_embeddings

    # --- reading ------------------------------------------------------------------------------------------------------

    def encode_image(self, inputs: Tensor) -> Tensor:
        """Encode preprocessed images ``(U, 3, H, W)``, or videos ``(U, 3, F, H, W)``, to tokens ``(U, S, C)``.

        A video of one clip, ``(U, 1, 3, F, H, W)`` as pipelines of videos make it, is one of its frames.

        Raises:
            ValueError: a video has several clips, or more frames than ``num_frames``.
        """
        if inputs.ndim == 6:
            if inputs.shape[1] != 1:
                raise ValueError(
                    f'GIT got {inputs.shape[1]} clips a video and reads one; sample its frames as one clip'
                )
            inputs = inputs.squeeze(1)
        if inputs.ndim == 5:
            return self.image_projection(self._encode_frames(inputs))
        return self.image_projection(self._encode_pictures(inputs))

    def _encode_pictures(self, inputs: Tensor) -> Tensor:
        return as_tokens(last_output(self.image_encoder(inputs)))  # (U, N, C_v)

    def _encode_frames(self, inputs: Tensor) -> Tensor:
        frames, most = inputs.shape[2], 0 if self.frame_embeddings is None else len(self.frame_embeddings)
        if frames > most:
            raise ValueError(f'a video has {frames} frames and num_frames of GIT is {most}; sample fewer or raise it')
        x = self._encode_pictures(inputs.transpose(1, 2).flatten(0, 1))  # (U F, N, C_v)
        x = x.unflatten(0, (-1, frames)) + self.frame_embeddings[:frames, None]  # (U, F, N, C_v)
        return x.flatten(1, 2)

    def encode_tokens(self, tokens: TokenBatch) -> Tensor:
        """Encode ids ``(B, T)`` of texts without an image, from left to right, to ``(B, T, C)``."""
        return self.text_stack(tokens.input_ids, tokens.mask, causal=True)

    # --- writing ------------------------------------------------------------------------------------------------------

    def start_writing(
        self,
        image_tokens: Tensor,
        image_of: Sequence[int],
        prompts: TokenBatch | None = None,
        cached: bool = False,
    ) -> WriterState:
        """Start the generation of B texts; a prompt is the beginning of its text.

        Image tokens see no text, so that what the text sees of them is computed here, once for each image.

        Args:
            image_tokens: ``(U, S, C)`` from :meth:`encode_image`.
            image_of: index of the image of each of the B texts.
            prompts: B prompts of equal length; None: no prompts.
            cached: cache keys and values of the tokens that :meth:`write_on` gets.
        """
        memory = memory_of_rows(self._remember(image_tokens), image_of, len(image_tokens))
        return WriterState.start(image_of, self.first_ids(len(image_of), prompts), memory, cached)

    def _remember(self, image_tokens: Tensor) -> StackMemory:
        return (
            self.text_stack.contexts(image_tokens) if self.cross_attention else self.text_stack.prefixes(image_tokens)
        )

    def write_on(self, tokens: TokenBatch, state: WriterState) -> Tensor:
        """Compute the hidden states ``(B, n, C)`` of the next n tokens of each text.

        Args:
            tokens: without cache, all tokens of the texts, with padding at the end; with cache, those after the cached
                ones, without padding.
            state: state from :meth:`start_writing`.
        """
        return self.text_stack(tokens.input_ids, tokens.mask, causal=True, cache=state.cache, memory=state.memory)
