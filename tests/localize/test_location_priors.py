import pytest
import torch

from cxrtut.localize.location_priors import centre_prior, pseudo_masks

CLASSES = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax",
)  # fmt: skip
LUNGS = [name for name in CLASSES if name != "Cardiomegaly"]


@pytest.fixture(params=[16, 32])
def masks(request):
    return dict(zip(CLASSES, pseudo_masks(CLASSES, request.param), strict=True))


def centre(mask):
    """(x, y) of the mean place, in shares of the image."""
    y, x = mask.nonzero().double().mean(0) + 0.5
    return float(x) / mask.shape[1], float(y) / mask.shape[0]


@pytest.mark.parametrize("cells", [8, 16, 32])
def test_pseudo_masks_are_shares_of_cells_and_every_class_has_some(cells):
    masks = pseudo_masks(CLASSES, cells)
    assert masks.shape == (8, cells, cells) and masks.dtype == torch.float32
    for mask in masks:
        assert mask.min() == 0 and 0.7 < mask.max() <= 1 and mask.mean() < 0.5
    edges = (masks > 0) & (masks < 1)
    assert edges.any() and edges.sum() < 4 * 8 * cells


def test_the_heart_crosses_the_midline_and_lies_more_on_the_patients_left(masks):
    heart = masks["Cardiomegaly"]
    left, right = heart.chunk(2, dim=1)
    assert 0 < left.sum() < right.sum()
    assert heart[:, heart.shape[1] // 2 - 1 : heart.shape[1] // 2 + 1].any(0).all()
    assert centre(heart)[1] > 0.5


def test_the_lungs_are_mirror_images(masks):
    for name in LUNGS:
        assert torch.equal(masks[name], masks[name].flip(-1))


def test_between_the_lungs_there_is_a_gap_where_cells_are_fine_enough():
    lungs = pseudo_masks(("Mass",), 32)[0]
    assert not lungs[:, 15:17].any() and lungs[:, 12].any()


@pytest.mark.parametrize("cells", [8, 16, 32])
def test_the_heart_is_an_enlarged_one_and_lies_to_the_patients_left(cells):
    heart, lungs = pseudo_masks(("Cardiomegaly", "Mass"), cells).sum(1)  # along x
    chest = (lungs > 0).nonzero()
    width = int(chest[-1] - chest[0]) + 1
    share = (heart > 0).sum() / width
    assert share > 0.5, "cardiomegaly: more than half of the chest's width"
    assert heart[cells // 2 :].sum() > 1.2 * heart[: cells // 2].sum()


def test_four_diseases_have_the_whole_lungs(masks):
    for name in ("Mass", "Nodule", "Pneumonia"):
        assert torch.equal(masks[name], masks["Infiltration"])
    assert (masks["Pneumothorax"] <= masks["Infiltration"]).all()
    for name in ("Atelectasis", "Effusion", "Pneumothorax"):
        assert masks[name].sum() < masks["Infiltration"].sum()


def test_fluid_and_collapse_lie_below_and_free_air_above(masks):
    assert torch.equal(masks["Atelectasis"], masks["Effusion"])
    lungs = centre(masks["Infiltration"])[1]
    below, above = (centre(masks[name])[1] for name in ("Atelectasis", "Pneumothorax"))
    assert below > lungs + 0.1 and above < lungs - 0.05
    assert not (masks["Atelectasis"] * masks["Pneumothorax"]).any()


def test_the_lower_third_and_the_upper_half_of_the_lungs_height():
    fine = dict(zip(CLASSES, pseudo_masks(CLASSES, 100), strict=True))

    def extent(name):
        rows = fine[name].any(1).nonzero()
        return int(rows[0]), int(rows[-1]) + 1

    top, bottom = extent("Infiltration")
    height = bottom - top
    assert 40 < height < 80
    begin, end = extent("Atelectasis")
    assert end == bottom and begin == pytest.approx(bottom - height / 3, abs=1.5)
    begin, end = extent("Pneumothorax")
    assert begin == top and end == pytest.approx(top + height / 2, abs=1.5)
    whole, lower = fine["Infiltration"], fine["Atelectasis"]
    down_there = whole * (lower > 0).any(1, keepdim=True)
    inner = slice(int((lower > 0).any(1).nonzero()[0]) + 1, None)  # without the border's row
    assert (down_there[inner] <= lower[inner] + 1e-6).all(), "all of the lungs down there"
    assert lower.sum() > 1.2 * down_there.sum(), "and the corners beside them"


def test_other_classes_get_no_mask_and_the_order_is_that_of_the_classes():
    masks = pseudo_masks(("Hernia", "Mass", "Spot", "Cardiomegaly"), 16)
    assert masks.shape == (4, 16, 16) and not masks[0].any() and not masks[2].any()
    assert torch.equal(masks[[1, 3]], pseudo_masks(("Mass", "Cardiomegaly"), 16))
    assert pseudo_masks((), 16).shape == (0, 16, 16)


def test_a_finer_mask_averages_to_the_coarser_one():
    coarse, fine = pseudo_masks(CLASSES, 8), pseudo_masks(CLASSES, 64)
    mean = torch.nn.functional.avg_pool2d(fine[:, None], 8)[:, 0]
    assert (mean - coarse).abs().max() < 0.1 and (mean - coarse).abs().mean() < 0.01


@pytest.mark.parametrize("cells", [7, 8])
def test_the_centre_prior_is_largest_at_the_centre_and_symmetric(cells):
    prior = centre_prior(3, cells)
    assert prior.shape == (3, cells, cells) and torch.equal(prior[0], prior[2])
    one = prior[0]
    assert torch.allclose(one, one.flip(0)) and torch.allclose(one, one.flip(1))
    assert torch.allclose(one, one.T)
    middle = one[(cells - 1) // 2 : cells // 2 + 1, (cells - 1) // 2 : cells // 2 + 1]
    assert (middle == one.max()).all() and (one == one.max()).sum() == middle.numel()
    row = one[cells // 2, cells // 2 :]
    assert (row[1:] < row[:-1]).all() and (one > 0).all()


def test_the_centre_prior_is_the_gaussian_by_hand():
    one = centre_prior(1, 5, sigma=0.5)[0]  # centres at -0.8, -0.4, 0, 0.4, 0.8
    assert one[2, 2] == 1
    assert one[2, 3].item() == pytest.approx(torch.tensor(-0.32).exp().item())
    assert one[0, 0].item() == pytest.approx(torch.tensor(-2.56).exp().item())
    assert (centre_prior(1, 5, sigma=0.1) <= one).all()


def test_the_centre_priors_of_two_classes_are_not_one_memory():
    prior = centre_prior(2, 4)
    prior[0] = 0
    assert prior[1].all()
