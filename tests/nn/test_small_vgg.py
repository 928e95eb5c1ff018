"""VGG made small."""

import pytest
import torch
from torch import nn

from cxrtut.localize.gradcam import grad_cam
from cxrtut.nn.backbones import VGG19
from cxrtut.nn.small_vgg import SmallVGG


def test_its_convolutions_are_named_as_those_of_vgg_19_and_halved_between_stages():
    small = SmallVGG(1, 4)
    with torch.device("meta"):
        large = {name for name, _ in VGG19().features.named_children()}
    names = [name for name, _ in small.features.named_children()]
    assert {n for n in names if not n.startswith("norm")} < large
    assert [n for n in names if n.startswith("conv")] == [
        f"conv{stage}_{k}" for stage in (1, 2, 3, 4) for k in (1, 2)
    ]
    sizes = {}
    for name, layer in small.features.named_children():
        layer.register_forward_hook(lambda _, __, out, n=name: sizes.update({n: out.shape}))
    assert small(torch.zeros(2, 1, 64, 64)).shape == (2, 2)
    assert sizes["norm2_2"] == (2, 8, 32, 32) and sizes["norm4_2"] == (2, 32, 8, 8)
    assert "pool4" not in sizes


def test_every_layer_but_the_last_has_a_norm_and_relus_leave_their_input_alone():
    small = SmallVGG(3, 2)
    relus = [m for m in small.modules() if isinstance(m, nn.ReLU)]
    assert len(relus) == 9 and not any(m.inplace for m in relus)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in small.modules()) == 8
    assert all(c.bias is None for c in small.modules() if isinstance(c, nn.Conv2d))


def test_a_grad_cam_can_be_taken_of_it():
    torch.manual_seed(0)
    small = SmallVGG(1, 4).eval()
    layer = small.features.get_submodule("norm4_2")
    heat = grad_cam(small, layer, torch.rand(3, 1, 32, 32), torch.ones(3, dtype=torch.int64))
    assert heat.shape == (3, 4, 4) and (heat >= 0).all() and heat.max() > 0


@pytest.mark.parametrize("size", [32, 48, 64])
def test_it_takes_images_of_any_size(size):
    assert SmallVGG(1, 2, classes=5)(torch.zeros(2, 1, size, size)).shape == (2, 5)


def test_numbers_below_one_are_refused():
    for wrong in ({"channels": 0}, {"width": 0}, {"classes": 0}):
        with pytest.raises(ValueError, match="expected channels, width and classes of 1 or more"):
            SmallVGG(**wrong)
