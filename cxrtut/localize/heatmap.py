"""What is done to a heat map before it is scored, cut or shown: range, size, smoothness."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def normalise(heatmap: Float[Tensor, "B H W"]) -> Float[Tensor, "B H W"]:
    """(h - min h) / (max h - min h) of each image: [0, 1], both ends reached.

    A constant map, which points nowhere, becomes zeros. A map with a NaN becomes NaN.
    """
    low = heatmap.amin(dim=(1, 2), keepdim=True)
    spread = heatmap.amax(dim=(1, 2), keepdim=True) - low
    return (heatmap - low) / torch.where(spread == 0, torch.ones_like(spread), spread)


def resize_heatmap(
    heatmap: Float[Tensor, "B h w"], size: tuple[int, int]
) -> Float[Tensor, "B H W"]:
    """Bilinear resampling to `size` = (H, W), edge on edge.

    Each value sits at the centre of its pixel (`align_corners=False`), the frame in which boxes are
    counted. Half precision is resampled in float32. Meant for enlarging the map of a feature layer;
    shrinking a map this way skips pixels.

    Raises:
        ValueError: a size that is not positive.
    """
    if min(size) <= 0:
        raise ValueError(f"size: expected a positive (height, width), got {size}")
    precise = heatmap.to(torch.promote_types(heatmap.dtype, torch.float32))
    large = F.interpolate(precise[:, None], size=size, mode="bilinear", align_corners=False)
    return large[:, 0].to(heatmap.dtype)


def smooth_heatmap(heatmap: Float[Tensor, "B H W"], size: int = 5) -> Float[Tensor, "B H W"]:
    """The mean of the `size` x `size` pixels around each pixel; beyond the border there are none.

    Raises:
        ValueError: a size that is not odd, and so has no centre.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size: expected an odd number of pixels, got {size}")
    precise = heatmap.to(torch.promote_types(heatmap.dtype, torch.float32))
    window = F.avg_pool2d(
        precise[:, None], size, stride=1, padding=size // 2, count_include_pad=False
    )
    return window[:, 0].to(heatmap.dtype)


def heatmap_from_maps(
    maps: Float[Tensor, "B K h w"], size: tuple[int, int]
) -> Float[Tensor, "B K H W"]:
    """Maps of a feature layer, of any sign, as heat maps of the image: S - min S of each map,
    enlarged. >= 0 with 0 reached, in the units of the map.

    Reading (evaluation, the range of a map): Papers that follow ChestX-ray8 bring each map to [0,
        255] before they cut it.
        Here: The lowest place becomes 0, but the range stays.
        Why: Only what lies above the lowest place counts, and an image can still have more than
            another.
    """
    flat = maps.flatten(0, 1).to(torch.promote_types(maps.dtype, torch.float32))
    spread = flat.amax((1, 2), keepdim=True) - flat.amin((1, 2), keepdim=True)
    # Twice, so that rounding in a map without contrast is not taken for contrast
    unit = normalise(resize_heatmap(normalise(flat), size))
    return (unit * spread).unflatten(0, maps.shape[:2]).to(maps.dtype)
