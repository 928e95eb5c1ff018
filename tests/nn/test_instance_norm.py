"""The instance norm is torch's, its weights and its gradients too."""

import pytest
import torch
from torch import nn

from cxrtut.nn.instance_norm import InstanceNorm2d


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_it_is_the_instance_norm_of_torch(affine, mode):
    ours, theirs = InstanceNorm2d(3, affine=affine), nn.InstanceNorm2d(3, affine=affine)
    for norm in (ours, theirs):
        getattr(norm, mode)()
    if affine:
        nn.init.uniform_(ours.weight)
        nn.init.uniform_(ours.bias)
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(4, 3, 5, 6, requires_grad=True)
    mine, torchs = ours(image), theirs(image)
    torch.testing.assert_close(mine, torchs)
    weights = torch.randn_like(mine)
    slopes = [torch.autograd.grad((out * weights).sum(), image)[0] for out in (mine, torchs)]
    torch.testing.assert_close(*slopes)


def test_an_image_is_normalised_by_itself():
    norm, images = InstanceNorm2d(2), torch.randn(3, 2, 8, 8)
    torch.testing.assert_close(norm(images)[:1], norm(images[:1]))
    torch.testing.assert_close(norm(5 * images + 2), norm(images), atol=1e-4, rtol=1e-4)
