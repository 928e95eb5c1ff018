"""A matrix product where it is faster, and always the convolution of torch."""

import pytest
import torch
from torch import nn

from cxrtut.nn import few_places
from cxrtut.nn.few_places import FewPlacesConv2d

KINDS = [
    {"kernel_size": 4, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 1, "padding": 1, "bias": False},
    {"kernel_size": (2, 3), "stride": (1, 2), "padding": (0, 2)},
    {"kernel_size": 2, "dilation": 2},
]
OTHERS = [
    {"kernel_size": 3, "groups": 3},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
]


@pytest.fixture
def products(monkeypatch):
    """How often patches were made for a matrix product."""
    made = []
    unfold = few_places.F.unfold
    monkeypatch.setattr(few_places.F, "unfold", lambda *args: made.append(1) or unfold(*args))
    return made


def pair(channels, **kind):
    """Ours and torch's, with the same weights in float64."""
    ours, theirs = (of(3, channels, **kind).double() for of in (FewPlacesConv2d, nn.Conv2d))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_convolution_of_torch_with_all_gradients_and_their_gradients(kind, products):
    ours, theirs = pair(300, **kind)
    image = torch.rand(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    found = []
    for layer in (ours, theirs):
        out = layer(image)
        slope = torch.autograd.grad(out.pow(2).sum(), image, create_graph=True)[0]
        found.append([out, slope, *torch.autograd.grad(slope.pow(2).sum(), layer.weight)])
    for mine, torchs in zip(*found, strict=True):
        torch.testing.assert_close(mine, torchs)
    assert len(products) == 1


@pytest.mark.parametrize(("channels", "images", "multiplied"), [(32, 2, 1), (31, 2, 0), (32, 3, 0)])
def test_there_is_a_product_where_channels_are_four_times_the_places(
    channels, images, multiplied, products
):
    ours, theirs = pair(channels, kernel_size=4, stride=2, padding=1)
    image = torch.rand(images, 3, 4, 4, dtype=torch.float64)  # four places an image
    torch.testing.assert_close(ours(image), theirs(image))
    assert len(products) == multiplied


def test_it_pays_on_a_cpu_alone():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert few_places.pays(32, 8, cpu) and not few_places.pays(31, 8, cpu)
    assert not few_places.pays(32, 8, gpu)


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_plain_convolution_is_left_to_torch(kind, products):
    ours, theirs = pair(300, **kind)
    image = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(ours(image), theirs(image))
    assert not products


def test_no_images_make_an_empty_map_and_too_small_ones_are_refused_as_by_torch():
    ours, _ = pair(8, kernel_size=4, stride=2, padding=1)
    assert ours(torch.rand(0, 3, 4, 4, dtype=torch.float64)).shape == (0, 8, 2, 2)
    with pytest.raises(RuntimeError):
        ours(torch.rand(1, 3, 1, 1, dtype=torch.float64))
