"""Parts of one's own: a transform that finds the class in a caption, and the normalisation of linear probes."""

from collections.abc import Sequence

from mmcv.transforms import BaseTransform
from torch import Tensor, nn

from florence_mm.registry import MODELS, TRANSFORMS


@TRANSFORMS.register_module()
class LabelOfText(BaseTransform):
    """Set ``gt_label`` to the index of the one class that ``text`` names.

    Args:
        classes: their names, each one word.

    Raises:
        ValueError: a text names no class, or several.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)

    def transform(self, results: dict) -> dict:
        """Add the label to one sample of an image-text data set."""
        named = set(results['text'].split()) & set(self.classes)
        if len(named) != 1:
            raise ValueError(
                f'{results.get("source", "a sample")}: the text {results["text"]!r} names {len(named)} of the classes '
                f'{", ".join(self.classes)}; expected one, so correct the text or the classes'
            )
        results['gt_label'] = self.classes.index(named.pop())
        return results


@MODELS.register_module()
class NormalizedPooling(nn.Module):
    """Mean over the last map, then batch normalisation without learnt scale (as MAE's probes, arXiv 2111.06377, A.1).

    Args:
        in_channels: channels ``C`` of the map.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(in_channels, affine=False, eps=1e-6)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor]:
        """A backbone's maps, the last ``(B, C, H, W)``, to a tuple of one ``(B, C)``, as mmpretrain's heads want it."""
        return (self.norm(maps[-1].mean((2, 3))),)
