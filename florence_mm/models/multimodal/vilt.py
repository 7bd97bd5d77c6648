"""ViLT, vision-and-language transformer without convolution or region supervision (arXiv 2102.03334).

One pre-norm transformer, which starts from a ViT, reads the embedded words of a text and the linearly embedded patches
of a picture. Pictures keep their shape: a batch is padded, and each picture's positions are interpolated from one table
(section 3.3; ``ViLT/vilt/modules/vision_transformer.py``).

Shape legend: ``U`` images, ``B`` samples, ``T`` text tokens, ``S`` image tokens, the class token first, ``C`` hidden
size, ``h, w`` patches of the batch's padded pictures.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from florence_mm.models.base import build_part, check_width
from florence_mm.models.checkpoints.fitting import fit_on_load
from florence_mm.models.layers.clip_block import PreNormBlock, init_blocks
from florence_mm.models.layers.initialisation import init_bert_weights
from florence_mm.models.layers.token_layout import TokenLayout
from florence_mm.models.text.stack import TextEmbeddings
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch
from florence_mm.ops.attention import dropout
from florence_mm.ops.inference import is_recorded
from florence_mm.ops.patches import embed_patches
from florence_mm.registry import MODELS

from .batch import last_output
from .single_stream import SingleStream, with_mask


class PatchTransformer(BaseModule):
    """The transformer of a plain ViT: patches, class token, positions, pre-norm blocks, and the norm behind them.

    Parameters are named as those of :class:`CLIPVisionTower`, so that weights of a ViT are read the same way.

    Args:
        in_channels: channels of what is cut into patches.
        hidden_size: C.
        num_layers: number of blocks.
        num_heads: heads of each block.
        mlp_ratio: hidden width of the MLPs in multiples of C.
        patch_size: side of a patch.
        img_size: side of the usual input, which has a position per patch.
        layer_norm_eps: epsilon of the layer norms.
        init_cfg: see mmengine.

    Raises:
        ValueError: sizes do not fit together.
    """

    antialias = False

    def __init__(
        self,
        in_channels: int,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        mlp_ratio: float,
        patch_size: int,
        img_size: int,
        layer_norm_eps: float,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        side = img_size // patch_size
        if num_layers < 1 or side < 1 or hidden_size % num_heads:
            raise ValueError(
                f'num_layers={num_layers}, img_size={img_size} with patch_size={patch_size}, and hidden_size='
                f'{hidden_size} with num_heads={num_heads} of ViLT do not fit; give at least a layer and a patch, and '
                'heads that divide the width'
            )
        self.patches_resolution = (side, side)
        self.conv1 = nn.Conv2d(in_channels, hidden_size, patch_size, patch_size)
        self.class_embedding = nn.Parameter(torch.empty(hidden_size).normal_(std=0.02))
        self.positional_embedding = nn.Parameter(torch.empty(1 + side * side, hidden_size).normal_(std=0.02))
        self.resblocks = nn.ModuleList(
            PreNormBlock(hidden_size, num_heads, nn.GELU, layer_norm_eps, int(mlp_ratio * hidden_size))
            for _ in range(num_layers)
        )
        self.ln_post = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        init_blocks(self.resblocks, hidden_size)
        self.register_load_state_dict_pre_hook(fit_on_load)

    def positions(self, height: int, width: int) -> Tensor:
        """Interpolate the table to ``(height * width, C)``, corners onto corners as in ViLT."""
        table = self.positional_embedding[1:].T.unflatten(1, self.patches_resolution)[None]  # (1, C, side, side)
        if (height, width) != self.patches_resolution:
            table = F.interpolate(table, (height, width), mode='bilinear', align_corners=True)
        return table[0].flatten(1).T


@MODELS.register_module()
class ViLT(SingleStream):
    """ViLT, a single-stream model of words and patches; it implements the protocols reader and fuser.

    Args:
        tokenizer: the :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer` (or its config); BERT's in ViLT.
        image_encoder: None: patches of the picture itself, as in ViLT. Or a backbone (or its config) that returns a map
            ``(U, C_v, H, W)``, or a tuple of which the last is used, whose patches are taken instead; its
            ``num_features`` is C_v.
        hidden_size: C.
        num_layers: number of blocks.
        num_heads: heads of each block.
        mlp_ratio: hidden width of the MLPs in multiples of C.
        patch_size: side of a patch, in pixels, or in positions of the backbone's map; 32 in ViLT.
        img_size: side of the usual input in pixels, or of the usual map, which has a position per patch; 384 in ViLT,
            whose table is that of a ViT-B/32.
        max_patches: most patches of a picture in training, of which as many are drawn; None: all, as in fine-tuning.
        layer_norm_eps: epsilon of the layer norms of the transformer; 1e-6 in ViLT's code.
        text: arguments of the text embeddings: ``vocab_size`` (of the tokenizer), ``max_positions`` (``max_text_len``),
            ``num_types`` (2) and ``layer_norm_eps`` (1e-12), as BERT's.
        drop_rate: dropout of the embeddings.
        heads: heads (or their configs) by name, such as ``dict(itm=dict(type='FusionITMHead', negatives='data_set',
            alignment=0.1), mlm=dict(type='FusionMLMHead', whole_word=True))``.
        max_text_len: longest text in tokens, start and end included; 40 in ViLT.
        init_std: standard deviation of the initial weights outside the transformer.
        vit_init: ``init_cfg`` of the transformer alone, such as the weights of a ViT from which it starts.
        with_cp: recompute each block in the backward pass instead of keeping its activations.
        data_preprocessor: see mmengine; by default :class:`PaddedImageDataPreprocessor` with ViLT's mean and deviation.
        init_cfg: see mmengine.

    Raises:
        ValueError: sizes do not fit together.
    """

    def __init__(
        self,
        tokenizer: dict | TextTokenizer,
        image_encoder: dict | nn.Module | None = None,
        hidden_size: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        patch_size: int = 32,
        img_size: int = 384,
        max_patches: int | None = 200,
        layer_norm_eps: float = 1e-6,
        text: Mapping[str, Any] | None = None,
        drop_rate: float = 0.1,
        heads: Mapping[str, dict | nn.Module] | None = None,
        max_text_len: int = 40,
        init_std: float = 0.02,
        vit_init: dict | None = None,
        with_cp: bool = False,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        if data_preprocessor is None:
            data_preprocessor = {'type': 'PaddedImageDataPreprocessor', 'mean': [127.5] * 3, 'std': [127.5] * 3}
        super().__init__(tokenizer, hidden_size, max_text_len, data_preprocessor, init_cfg, parts_from=1)
        if max_patches is not None and max_patches < 1:
            raise ValueError(f'max_patches of ViLT is {max_patches}; give at least 1, or None for all')
        self.image_encoder = build_part(image_encoder)
        if self.image_encoder is not None:
            check_width(self.image_encoder, 'num_features', 'ViLT')
        channels = 3 if self.image_encoder is None else self.image_encoder.num_features
        self.transformer = PatchTransformer(
            channels, hidden_size, num_layers, num_heads, mlp_ratio, patch_size, img_size, layer_norm_eps, vit_init
        )
        text = {'vocab_size': self.tokenizer.vocab_size, 'max_positions': max_text_len, 'num_types': 2, **(text or {})}
        if text['vocab_size'] < self.tokenizer.vocab_size or text['max_positions'] < max_text_len:
            raise ValueError(
                f'vocab_size={text["vocab_size"]} and max_positions={text["max_positions"]} of ViLT are below the '
                f"tokenizer's {self.tokenizer.vocab_size} ids or max_text_len={max_text_len}; raise them"
            )
        self.text_embeddings = TextEmbeddings(
            **{
                'hidden_size': hidden_size,
                'position_offset': 0,
                'layer_norm_eps': 1e-12,
                'drop_rate': drop_rate,
                **text,
            }
        )
        self.token_type_embeddings = nn.Embedding(2, hidden_size)
        for part in (self.text_embeddings, self.token_type_embeddings, self.pooler):
            init_bert_weights(part, init_std)
        self.max_patches, self.drop_rate, self.with_cp = max_patches, drop_rate, with_cp
        self.add_heads(heads, init_std)

    @property
    def word_embeddings(self) -> nn.Embedding:
        """Word embeddings, to which heads may be tied."""
        return self.text_embeddings.word_embeddings

    # --- reading ------------------------------------------------------------------------------------------------------

    def encode_image(self, inputs: Tensor) -> Tensor:
        """Embed preprocessed pictures to tokens ``(U, S, C + 1)``, whose last channel is 1 where a token is real.

        Args:
            inputs: ``(U, 3, H, W)``, or ``(U, 4, H, W)`` with a channel that is 1 at real pixels and 0 at padding,
                which is to the right of and below a picture.
        """
        pixels, mask = inputs[:, :3], inputs[:, 3:]
        maps = pixels if self.image_encoder is None else last_output(self.image_encoder(pixels))
        patch = self.transformer.conv1.kernel_size[0]
        if min(maps.shape[2:]) < patch:  # a picture is one patch at least, as beside larger ones
            maps = F.pad(maps, (0, max(patch - maps.shape[3], 0), 0, max(patch - maps.shape[2], 0)))
        x = embed_patches(self.transformer.conv1, maps)  # (U, C, h, w)
        height, width = x.shape[2:]
        rate = self.drop_rate if self.training else 0.0
        first = self.transformer.class_embedding + self.transformer.positional_embedding[0]
        first = dropout(first.to(x.dtype).expand(x.shape[0], 1, -1), rate)  # (U, 1, C)
        sizes = None
        if mask.shape[1] and not is_recorded():
            sizes = _patches(mask, (height, width), patch if self.image_encoder is None else None)
        if sizes is None or all(size == [height, width] for size in sizes):
            x = x.flatten(2).transpose(1, 2) + self.transformer.positions(height, width).to(x.dtype)
            x, real = self._drawn(x), None
        else:
            x, real = self._padded(x.flatten(2).transpose(1, 2), sizes, width)
        x = torch.cat([first, dropout(x, rate)], 1) + self.token_type_embeddings.weight[1]
        return with_mask(x, None if real is None else F.pad(real, (1, 0), value=True))

    def _drawn(self, x: Tensor) -> Tensor:
        """Draw patches ``(U, max_patches, C)`` in training, if there are more."""
        if not self.training or self.max_patches is None or x.shape[1] <= self.max_patches:
            return x
        chosen = torch.stack([_draw(x.shape[1], self.max_patches) for _ in x]).to(x.device, non_blocking=True)
        return x.gather(1, chosen[..., None].expand(-1, -1, x.shape[2]))

    def _padded(self, x: Tensor, sizes: list[list[int]], width: int) -> tuple[Tensor, Tensor]:
        """Choose the real patches of pictures of several sizes, with their positions.

        Args:
            x: ``(U, h * w, C)``.
            sizes: rows and columns of real patches of each picture.
            width: w.

        Returns:
            ``(U, most, C)``, and ``(U, most)`` bool, whether a patch is real.
        """
        tables, rows = {}, []
        for number, (height, columns) in enumerate(sizes):
            if (height, columns) not in tables:
                tables[height, columns] = self.transformer.positions(height, columns).to(x.dtype)
            places = (torch.arange(height)[:, None] * width + torch.arange(columns)).flatten()
            table, count = tables[height, columns], height * columns
            if self.training and self.max_patches is not None and count > self.max_patches:
                chosen = _draw(count, self.max_patches)
                places, table = places[chosen], table.index_select(0, chosen.to(x.device))
            rows.append(x[number].index_select(0, places.to(x.device)) + table)
        lengths = torch.tensor([len(row) for row in rows])
        real = torch.arange(int(lengths.max())) < lengths[:, None]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), real.to(x.device)

    def encode_tokens(self, tokens: TokenBatch) -> Tensor:
        """Embed ids ``(B, T)`` to ``(B, T, C)``, as BERT, with the type of texts."""
        device = self.word_embeddings.weight.device
        layout = TokenLayout(*tokens.input_ids.shape)
        x = layout.pad(self.text_embeddings(tokens.input_ids.to(device, non_blocking=True), layout))
        return x + self.token_type_embeddings.weight[0]

    # --- fusing -------------------------------------------------------------------------------------------------------

    def run(self, x: Tensor, layout: TokenLayout) -> Tensor:
        """Apply blocks and norm to packed tokens of pairs, ``(N, C)`` to ``(N, C)``."""
        for block in self.transformer.resblocks:
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(block, x, layout, use_reentrant=False)
            else:
                x = block(x, layout)
        return self.transformer.ln_post(x)

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay: norms, biases, class token."""
        return {name for name, parameter in self.named_parameters() if parameter.ndim == 1}


def _draw(count: int, chosen: int) -> Tensor:
    """Draw ``chosen`` of ``count`` patches without order."""
    return torch.randperm(count)[:chosen].sort().values


def _patches(mask: Tensor, size: tuple[int, int], patch: int | None) -> list[list[int]]:
    """Rows and columns of real patches of each picture, by the pixel masks ``(U, 1, H, W)``.

    Of pixels those are real that are wholly in the picture, at least one, as for the picture alone; of the map of a
    backbone (``patch`` is None) those whose first pixel is.
    """
    if patch is not None:
        real = mask[:, 0] > 0.5  # (U, H, W)
        sides = torch.stack([real[:, :, 0].sum(1), real[:, 0].sum(1)], 1)  # (U, 2)
        return sides.div(patch, rounding_mode='floor').clamp(min=1).tolist()
    small = F.interpolate(mask.float(), size)[:, 0] > 0.5  # (U, h, w)
    return torch.stack([small[:, :, 0].sum(1), small[:, 0].sum(1)], 1).tolist()
