"""pix2pix's U-Net against its published sizes and a second way of writing it."""

import pytest
import torch
from torch import nn

from cxrtut.nn.instance_norm import InstanceNorm2d
from cxrtut.nn.pix2pix_unet import Pix2PixUNet


@pytest.mark.parametrize(
    ("channels", "halvings", "numbers"),
    [(3, 8, 54_413_955), (1, 8, 54_407_809), (3, 7, 41_828_995)],
)
def test_it_has_the_parameters_of_the_public_networks(channels, halvings, numbers):
    with torch.device("meta"):
        network = Pix2PixUNet(channels, halvings=halvings)
    assert sum(p.numel() for p in network.parameters()) == numbers


class Block(nn.Module):
    """A U-Net as blocks within blocks, with activations in place."""

    def __init__(self, outer, inner, inside=None, *, outermost=False, channels=1):
        super().__init__()
        down = nn.Conv2d(channels if outermost else outer, inner, 4, 2, 1, bias=False)
        up_in = inner if inside is None else 2 * inner
        up = nn.ConvTranspose2d(up_in, channels if outermost else outer, 4, 2, 1, bias=outermost)
        self.outermost = outermost
        layers = [] if outermost else [nn.LeakyReLU(0.2, inplace=True)]
        layers += [down] + ([] if outermost or inside is None else [nn.BatchNorm2d(inner)])
        layers += [] if inside is None else [inside]
        layers += [nn.ReLU(inplace=True), up]
        layers += [nn.Tanh()] if outermost else [nn.BatchNorm2d(outer)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x) if self.outermost else torch.cat([x, self.layers(x)], 1)


def test_it_is_the_network_of_blocks_within_blocks():
    torch.manual_seed(0)
    ours = Pix2PixUNet(2, 4, 5, dropout=0.0)
    inside = Block(32, 32)
    for outer, inner in ((16, 32), (8, 16), (4, 8)):
        inside = Block(outer, inner, inside)
    theirs = Block(4, 4, inside, outermost=True, channels=2)

    def ordered(module, kinds):
        return [part for part in module.modules() if isinstance(part, kinds)]

    ours_down, theirs_down = (ordered(m, nn.Conv2d) for m in (ours, theirs))
    ours_up, theirs_up = (ordered(m, nn.ConvTranspose2d) for m in (ours, theirs))
    assert len(ours_down) == len(theirs_down) == 5 == len(ours_up)
    with torch.no_grad():
        for mine, other in zip(ours_down + ours_up, theirs_down + theirs_up, strict=True):
            other.weight.copy_(mine.weight)
            if mine.bias is not None:
                other.bias.copy_(mine.bias)
    image = torch.rand(3, 2, 32, 32) * 2 - 1  # in training: the norms' numbers are the batch's
    torch.testing.assert_close(ours(image), theirs(image))


def test_dropout_varies_images_in_training_and_stands_in_the_blocks_of_the_public_network():
    torch.manual_seed(0)
    wide = Pix2PixUNet(1, 2, 8)
    assert [any(isinstance(m, nn.Dropout) for m in level) for level in wide.decoder] == [
        False, True, True, True, False, False, False,
    ]  # fmt: skip
    small = Pix2PixUNet(1, 2, 3)
    assert [any(isinstance(m, nn.Dropout) for m in level) for level in small.decoder] == [
        False, True,
    ]  # fmt: skip
    image = torch.rand(2, 1, 8, 8)
    assert not torch.equal(small(image), small(image))
    small.eval()
    assert torch.equal(small(image), small(image))


def test_every_pixel_sees_every_other_and_the_output_is_an_image():
    torch.manual_seed(0)
    network = Pix2PixUNet(1, 4, 4, norm=InstanceNorm2d, dropout=0.0)
    image = (torch.rand(1, 1, 16, 32) * 2 - 1).requires_grad_()
    out = network(image)
    assert out.shape == image.shape and out.abs().max() <= 1
    (slope,) = torch.autograd.grad(out[0, 0, 0, 0], image)
    assert (slope != 0).all()


def test_an_instance_norm_has_biases_before_it_and_a_batch_norm_has_none():
    with_bias = [
        [part.bias is not None for part in network.modules() if isinstance(part, nn.Conv2d)]
        for network in (Pix2PixUNet(1, 4, 3), Pix2PixUNet(1, 4, 3, norm=InstanceNorm2d))
    ]
    assert with_bias == [[False] * 3, [True] * 3]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"channels": 0}, "channels and base of 1 or more"),
        ({"halvings": 1}, "2 halvings or more, got 1, 64 and 1"),
        ({"dropout": 1.0}, "dropout: expected a probability in"),
    ],
)
def test_wrong_numbers_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Pix2PixUNet(**arguments)


def test_an_image_that_cannot_be_halved_so_often_is_refused():
    with pytest.raises(ValueError, match=r"divisible by 16 .*, got 16 x 24"):
        Pix2PixUNet(1, 4, 4)(torch.rand(1, 1, 16, 24))
