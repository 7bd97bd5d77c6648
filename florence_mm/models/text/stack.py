"""A stack of transformer layers on token embeddings: BERT's, BART's, and the text part of models that write.

Shape legend: ``B`` texts, ``T`` tokens of the longest text, ``N`` real tokens of the batch, ``U`` pictures, ``S`` their
tokens, ``C`` channels, ``H`` heads, ``D = C / H``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from florence_mm.models.generation.cache import CacheStack
from florence_mm.models.layers.fusion_layer import FusionLayer
from florence_mm.models.layers.initialisation import init_bert_weights
from florence_mm.models.layers.token_layout import TokenLayout, layout_of
from florence_mm.models.layers.transformer import Context, KeysValues
from florence_mm.registry import MODELS

from .embeddings import TextEmbeddings


@dataclass(frozen=True)
class StackMemory:
    """What the layers of a stack see besides the tokens of their own text, the same at every step of generation.

    Attributes:
        prefixes: of each layer keys and values ``(U, H, S, D)`` of tokens before the text, for self-attention.
        contexts: of each layer keys and values ``(U, H, S, D)`` of another sequence, for cross-attention, or its
            tokens ``(U, S, C)``, where the layer reads them itself; None for a layer without.
        context_layout: layout of the other sequence.
    """

    prefixes: Sequence[KeysValues] = field(default_factory=tuple)
    contexts: Sequence[Context | None] = field(default_factory=tuple)
    context_layout: TokenLayout | None = None

    def of_rows(self, rows: Sequence[int]) -> 'StackMemory':
        """Select the memory of the pictures or texts ``rows``, one for each row of a batch."""
        device = next(layer[0].device for layer in (*self.prefixes, *self.contexts) if layer is not None)
        index = torch.tensor(list(rows)).to(device, non_blocking=True)

        def select(layer: Context | None) -> Context | None:
            if layer is None or isinstance(layer, Tensor):
                return layer if layer is None else layer.index_select(0, index)
            return layer[0].index_select(0, index), layer[1].index_select(0, index)

        prefixes, contexts = ([select(layer) for layer in layers] for layers in (self.prefixes, self.contexts))
        layout = self.context_layout
        if layout is not None:
            mask = None if layout.mask is None else layout.mask.index_select(0, index)
            layout = TokenLayout(len(index), layout.length, mask=mask)
        return StackMemory(prefixes, contexts, layout)


class LayerStack(BaseModule):
    """Stack of post-norm transformer layers on embedded tokens.

    Args:
        hidden_size: C.
        num_layers: number of layers.
        num_heads: heads of each layer.
        mlp_ratio: hidden width of the MLPs in multiples of C.
        drop_rate: dropout before each residual.
        attn_drop_rate: dropout of attention weights.
        layer_norm_eps: epsilon of the layer norms; 1e-12 in BERT, 1e-5 in BART.
        cross_attention: each layer attends to another sequence, if one is given.
        cross_every: with ``cross_attention``, the first of every so many layers alone does so; 2 in the Q-Former.
        context_dims: channels of the other sequence; None: C.
        causal_attention: the layers have a self-attention of their own for causal texts, as in BLIP.
        lead_mlp: the layers have an MLP of their own for leading tokens, see :class:`FusionLayer`.
        init_std: standard deviation of the initial weights of linear layers and embeddings.
        with_cp: recompute each layer in the backward pass instead of keeping its activations.
        init_cfg: see mmengine.
        embeddings: embeddings of the tokens that enter it; None: they come from elsewhere.

    Raises:
        ValueError: there are no layers, or a size does not fit.
    """

    def __init__(
        self,
        hidden_size: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        drop_rate: float = 0.1,
        attn_drop_rate: float = 0.1,
        layer_norm_eps: float = 1e-12,
        cross_attention: bool = False,
        context_dims: int | None = None,
        causal_attention: bool = False,
        cross_every: int = 1,
        lead_mlp: bool | Literal['alone'] = False,
        init_std: float = 0.02,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
        embeddings: TextEmbeddings | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, value in {'num_layers': num_layers, 'cross_every': cross_every}.items():
            if value < 1:
                raise ValueError(f'{name} of the text stack is {value}; give at least 1')
        self.with_cp = with_cp
        self.embeddings = embeddings
        args = (hidden_size, num_heads, mlp_ratio, drop_rate, attn_drop_rate, layer_norm_eps)
        self.layers = nn.ModuleList(
            FusionLayer(*args, context_dims, cross_attention and number % cross_every == 0, causal_attention, lead_mlp)
            for number in range(num_layers)
        )
        init_bert_weights(self, init_std)

    def run(
        self,
        x: Tensor,
        layout: TokenLayout,
        cache: CacheStack | None = None,
        memory: StackMemory | None = None,
        lead: int = 0,
        before_layer: Callable[[int, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Apply the layers to packed embeddings.

        Args:
            x: ``(N, C)``.
            layout: layout of the tokens.
            cache: keys and values of earlier tokens of the texts, to which those of these tokens are appended.
            memory: what the layers see besides; None: nothing, and cross-attention is skipped.
            lead: number of leading tokens of each sequence; only with ``lead_mlp``.
            before_layer: gets the number of each layer and what enters it, ``(N, C)``, and returns what shall.

        Returns:
            ``(N, C)``.
        """
        memory = StackMemory() if memory is None else memory
        for number, layer in enumerate(self.layers):
            x = x if before_layer is None else before_layer(number, x)
            step = {
                'context': memory.contexts[number] if memory.contexts else None,
                'context_layout': memory.context_layout,
                'cache': None if cache is None else cache.layer(number),
                'prefix': memory.prefixes[number] if memory.prefixes else None,
                'lead': lead,
            }
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(layer.step, x, layout, use_reentrant=False, **step)
            else:
                x = layer.step(x, layout, **step)
        return x

    def contexts(self, tokens: Tensor, mask: Tensor | None = None, queries: int | None = None) -> StackMemory:
        """Compute the memory of another sequence that all texts see by cross-attention.

        Args:
            tokens: ``(U, S, context_dims)``.
            mask: ``(U, S)`` bool, True where a token is real; None: all are.
            queries: number of tokens that will see each sequence, once; None: it is seen more often, as by texts that
                are written, so that keys and values pay in any case.
        """
        layout = layout_of(tokens, mask)
        packed = layout.pack(tokens)
        reads = [layer.crossattention if layer.has_crossattention else None for layer in self.layers]
        if queries is not None:
            contexts = [read and read.context(packed, layout, queries) for read in reads]
            return StackMemory(contexts=contexts, context_layout=layout)
        contexts = [read and read.keys_values(packed, layout) for read in reads]
        if not torch.is_grad_enabled():
            # texts are written, and each step reads them: in the order of memory, that takes half the time
            contexts = [pair and (pair[0].contiguous(), pair[1].contiguous()) for pair in contexts]
        return StackMemory(contexts=contexts, context_layout=layout)

    def prefixes(self, tokens: Tensor) -> StackMemory:
        """Compute the memory of tokens before the texts, which see each other, and which all tokens of texts see.

        They do not depend on the texts, so that those of a picture are computed once for all texts about it.

        Args:
            tokens: ``(U, S, C)``, embeddings.
        """
        layout = TokenLayout(*tokens.shape[:2])
        x, prefixes = self._through(layout.pack(tokens), layout, self.layers[:-1])
        prefixes.append(self.layers[-1].attention.keys_values(x, layout))  # nothing reads what the last layer makes
        return StackMemory(prefixes=prefixes)

    def read_prefixes(self, tokens: Tensor, memory: StackMemory) -> tuple[Tensor, StackMemory]:
        """Compute :meth:`prefixes` that see another sequence by cross-attention, and what the last layer makes of them.

        Args:
            tokens: ``(U, S, C)``, embeddings.
            memory: the other sequence, from :meth:`contexts`.

        Returns:
            ``(U, S, C)``, and the memory of these tokens.
        """
        layout = TokenLayout(*tokens.shape[:2])
        x, prefixes = self._through(layout.pack(tokens), layout, self.layers, memory)
        return layout.pad(x), StackMemory(prefixes=prefixes)

    def _through(
        self, x: Tensor, layout: TokenLayout, layers: Sequence[FusionLayer], memory: StackMemory | None = None
    ) -> tuple[Tensor, list[KeysValues]]:
        """Tokens ``(N, C)`` of prefixes behind layers, and what others see of them in each."""
        prefixes = []
        for number, layer in enumerate(layers):
            seen = (None, None) if memory is None else (memory.contexts[number], memory.context_layout)
            if self.with_cp and torch.is_grad_enabled():
                x, keys_values = checkpoint(layer.prefix_step, x, layout, *seen, use_reentrant=False)
            else:
                x, keys_values = layer.prefix_step(x, layout, *seen)
            prefixes.append(keys_values)
        return x, prefixes


@MODELS.register_module()
class TextStack(LayerStack):
    """Stack of post-norm transformer layers on token embeddings, which encodes texts or writes them.

    With the defaults it is BERT's encoder (arXiv 1810.04805). It takes the place of :class:`RobertaTextEncoder` in
    fusion models, too.

    Args:
        vocab_size: number of ids.
        hidden_size: C.
        max_positions: longest text in tokens.
        position_offset: rows of the position table before that of the first token; 2 in BART.
        num_types: token types, of which all tokens have the first; 2 in BERT, 0: none.
        drop_rate: dropout before each residual and behind the embeddings.
        layer_norm_eps: epsilon of the layer norms; 1e-12 in BERT, 1e-5 in BART.
        embed_norm_eps: that of the embeddings' norm; None: the same. 1e-8 in GIT.
        words: word embeddings of another stack to share, as BART's decoder shares the encoder's; None: its own.
        layers: further arguments of :class:`LayerStack`: ``num_layers`` (12), ``num_heads`` (12), ``mlp_ratio``,
            ``cross_attention`` and the others.

    Attributes:
        embed_dims (int): C.
        context_length (int): longest text in tokens.
        vocab_size (int): number of ids.

    Raises:
        ValueError: there are no layers, ids or positions, a size does not fit, or the shared words have another one.
    """

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        max_positions: int = 512,
        position_offset: int = 0,
        num_types: int = 2,
        drop_rate: float = 0.1,
        layer_norm_eps: float = 1e-12,
        embed_norm_eps: float | None = None,
        words: nn.Embedding | None = None,
        **layers: Any,
    ) -> None:
        for name, value in {'vocab_size': vocab_size, 'max_positions': max_positions}.items():
            if value < 1:
                raise ValueError(f'{name} of the text stack is {value}; give at least 1')
        if position_offset < 0 or num_types < 0:
            raise ValueError(
                f'position_offset={position_offset} and num_types={num_types} of the text stack must be at least 0'
            )
        if words is not None and words.weight.shape != (vocab_size, hidden_size):
            raise ValueError(
                f'the shared word embeddings are {tuple(words.weight.shape)} and the text stack has vocab_size='
                f'{vocab_size} and hidden_size={hidden_size}; give both stacks the same'
            )
        norm_eps = layer_norm_eps if embed_norm_eps is None else embed_norm_eps
        sizes = (vocab_size, hidden_size, max_positions, position_offset, num_types)
        super().__init__(
            hidden_size=hidden_size,
            drop_rate=drop_rate,
            layer_norm_eps=layer_norm_eps,
            embeddings=TextEmbeddings(*sizes, norm_eps, drop_rate, words),
            **layers,
        )
        self.embed_dims, self.context_length, self.vocab_size = hidden_size, max_positions, vocab_size

    def forward(
        self,
        input_ids: Tensor,
        mask: Tensor,
        causal: bool = False,
        cache: CacheStack | None = None,
        memory: StackMemory | None = None,
    ) -> Tensor:
        """Encode texts, or the next tokens of texts.

        Args:
            input_ids: ``(B, T)`` int64.
            mask: ``(B, T)`` bool, True where a token is real, best on the CPU; padding is at the end.
            causal: each token sees only itself and those before it.
            cache: keys and values of earlier tokens of the texts; those of these tokens, without padding, are appended.
                Only with ``causal``.
            memory: what the layers see besides; of as many rows as texts, or of fewer, each of which then has equally
                many consecutive texts. None: nothing, and cross-attention is skipped.

        Returns:
            ``(B, T, C)``, zeros at padding.

        Raises:
            ValueError: there are no texts, or more tokens than positions.
        """
        x, layout = self.embed(input_ids, mask, causal, cache)
        return layout.pad(self.run(x, layout, cache, memory))

    def embed(
        self,
        input_ids: Tensor,
        mask: Tensor,
        causal: bool = False,
        cache: CacheStack | None = None,
        before: Tensor | None = None,
    ) -> tuple[Tensor, TokenLayout]:
        """Embed texts, or their next tokens, to packed ``(N, C)`` with their layout; see :meth:`forward`.

        Args:
            input_ids: ``(B, T)`` int64.
            mask: ``(B, T)`` bool.
            causal: each token sees only itself and those before it.
            cache: keys and values of earlier tokens.
            before: ``(B, S, C)``, tokens of each sequence before its text, such as those of an image; positions count
                from the first of them.
        """
        if not input_ids.shape[0]:  # len() would fix the number in an export
            raise ValueError('the text stack got no texts; give at least one')
        given = 0 if before is None else before.shape[1]
        held = 0 if cache is None else cache.length
        if (length := held + given + input_ids.shape[1]) > self.context_length:
            what = f'{given} tokens before texts make' if given else 'texts have'
            less = 'make images smaller' if given else 'lower max_text_len of the model'
            raise ValueError(
                f'{what} {length} tokens and the text stack takes {self.context_length}; {less} or raise max_positions '
                'of the stack'
            )
        device = self.embeddings.word_embeddings.weight.device
        shape = input_ids.shape
        if before is not None:
            mask = torch.cat([mask.new_ones(shape[0], given), mask], 1)
        layout = TokenLayout.of(mask, causal, device) if cache is None else TokenLayout(*mask.shape, causal=True)
        return self.embeddings(input_ids.to(device, non_blocking=True), layout, held, before), layout
