"""Areas under the ROC curve of pixels: pooled, and image by image."""

import inspect
import math

import pytest
import sklearn.metrics
import torch

from cxrtut.metrics.pixels import image_auroc, pixel_auroc


def maps(n: int = 6, levels: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Heat of few levels, with ties, and masks that follow it loosely."""
    generator = torch.Generator().manual_seed(2)
    heatmap = (torch.rand(n, 9, 11, generator=generator) * levels).round() / levels
    return heatmap, torch.rand(n, 9, 11, generator=generator) < heatmap / 2


def pairs(heatmap, mask):
    """How often a positive pixel is hotter than a negative one, a tie counting half."""
    positive, negative = heatmap[mask][:, None], heatmap[~mask][None]
    return float(((positive > negative).double() + (positive == negative).double() / 2).mean())


def test_the_pooled_area_counts_pairs_of_pixels_of_all_images():
    heatmap, mask = maps()
    assert pixel_auroc(heatmap, mask) == pytest.approx(pairs(heatmap, mask), abs=1e-12)


def test_the_area_of_an_image_counts_pairs_of_its_own_pixels():
    heatmap, mask = maps()
    found = image_auroc(heatmap, mask)
    assert found.dtype == torch.float64
    for area, heat, truth in zip(found.tolist(), heatmap, mask, strict=True):
        assert area == pytest.approx(pairs(heat, truth), abs=1e-12)


@pytest.mark.parametrize("levels", [2, 20, 10**6])
def test_both_are_those_of_scikit_learn_with_and_without_ties(levels):
    heatmap, mask = maps(levels=levels)
    score, truth = heatmap.flatten().numpy(), mask.flatten().numpy()
    pooled = sklearn.metrics.roc_auc_score(truth, score)
    assert pixel_auroc(heatmap, mask) == pytest.approx(pooled, abs=1e-12)
    for area, s, t in zip(image_auroc(heatmap, mask).tolist(), heatmap, mask, strict=True):
        wanted = sklearn.metrics.roc_auc_score(t.flatten().numpy(), s.flatten().numpy())
        assert area == pytest.approx(wanted, abs=1e-12)


def test_the_truth_has_the_area_one_its_opposite_none_and_a_constant_map_a_half():
    _, mask = maps()
    for heat, area in ((mask.float(), 1.0), (1 - mask.float(), 0.0), (0.3 + 0 * mask, 0.5)):
        assert pixel_auroc(heat, mask) == area
        assert image_auroc(heat, mask).tolist() == [area] * len(mask)


def test_what_is_added_to_one_image_moves_the_pooled_area_and_not_that_of_the_image():
    heatmap, mask = maps()
    moved = heatmap.clone()
    moved[0] += 5
    assert torch.equal(image_auroc(moved, mask), image_auroc(heatmap, mask))
    assert abs(pixel_auroc(moved, mask) - pixel_auroc(heatmap, mask)) > 0.01


def test_images_of_which_all_or_no_pixels_are_positive_are_left_out():
    heatmap, mask = maps()
    mask[1], mask[4] = False, True
    kept = [0, 2, 3, 5]
    assert pixel_auroc(heatmap, mask) == pixel_auroc(heatmap[kept], mask[kept])
    assert image_auroc(heatmap, mask).isnan().tolist() == [i in (1, 4) for i in range(6)]
    for i in (1, 4):
        assert math.isnan(pixel_auroc(heatmap[i : i + 1], mask[i : i + 1]))
    both = [1, 4]  # together they have pixels of both kinds, but no image has
    assert math.isnan(pixel_auroc(heatmap[both], mask[both]))


def test_of_no_image_nothing_is_known():
    heatmap, mask = maps()
    assert math.isnan(pixel_auroc(heatmap[:0], mask[:0]))
    assert image_auroc(heatmap[:0], mask[:0]).shape == (0,)


def test_infinite_heat_is_a_rank_like_any_other():
    heatmap, mask = maps()
    far = heatmap.clone()
    far[heatmap == heatmap.max()] = torch.inf
    assert pixel_auroc(far, mask) == pixel_auroc(heatmap, mask)


@pytest.mark.parametrize("measure", [pixel_auroc, image_auroc])
def test_what_does_not_fit_is_named(measure):
    heatmap, mask = maps()
    measure = inspect.unwrap(measure)
    with pytest.raises(ValueError, match=r"mask: expected shape .*heat maps, got \(5, 9, 11\)"):
        measure(heatmap, mask[:5])
    with pytest.raises(TypeError, match=r"mask: expected torch.bool, got torch.float32"):
        measure(heatmap, mask.float())
    heatmap[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="heatmap: expected numbers, got NaN in 1 of 594"):
        measure(heatmap, mask)
