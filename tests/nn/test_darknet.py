"""Darknet-53 and YOLOv3's heads: as large as published, answers in order."""

import torch
from torch import nn

from cxrtut.nn.darknet import Darknet53, YoloHeads


def test_darknet_53_has_as_many_parameters_as_published():
    network = Darknet53()
    assert sum(p.numel() for p in network.parameters()) == 40_584_352
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 52


def test_the_maps_have_strides_8_16_and_32():
    with torch.no_grad():
        maps = Darknet53(1, 4)(torch.rand(2, 1, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(2, 32, 8, 12), (2, 64, 4, 6), (2, 128, 2, 3)]


def test_dilation_widens_what_a_cell_sees_and_adds_no_parameter():
    plain, dilated = Darknet53(1, 4), Darknet53(1, 4, dilated=True)
    assert sum(p.numel() for p in plain.parameters()) == sum(
        p.numel() for p in dilated.parameters()
    )
    far = [m for m in dilated.modules() if isinstance(m, nn.Conv2d) and m.dilation == (2, 2)]
    assert len(far) == 4 and all(m.padding == (2, 2) for m in far)
    with torch.no_grad():
        assert dilated(torch.rand(2, 1, 64, 64))[2].shape == (2, 128, 2, 2)


def test_answers_stand_map_by_map_row_by_row_three_to_a_cell():
    heads = YoloHeads((8, 16, 32), 2).eval()
    for k, head in enumerate(heads.heads):  # the coarsest map's first
        nn.init.zeros_(head[1].weight)
        head[1].bias.data = 100.0 * k + torch.arange(21.0)
    maps = [torch.rand(1, c, n, n) for c, n in ((8, 4), (16, 2), (32, 1))]
    told = heads(maps)
    assert told.shape == (1, 3 * (16 + 4 + 1), 7)
    expected = torch.arange(21.0).view(3, 7)
    assert torch.equal(told[0, :3], 200 + expected) and torch.equal(told[0, 45:48], 200 + expected)
    assert torch.equal(told[0, 48:51], 100 + expected) and torch.equal(told[0, 60:], expected)


def test_a_fine_map_hears_of_the_coarse_ones():
    torch.manual_seed(0)
    heads = YoloHeads((8, 16, 32), 1).eval()
    coarse = torch.rand(1, 32, 1, 1, requires_grad=True)
    told = heads([torch.rand(1, 8, 4, 4), torch.rand(1, 16, 2, 2), coarse])
    (slope,) = torch.autograd.grad(told[0, 0].sum(), coarse)
    assert slope.abs().max() > 0


def test_an_object_is_rare_at_first():
    heads = YoloHeads((8, 16, 32), 2)
    for head in heads.heads:
        bias = head[1].bias.view(3, 7)
        assert torch.allclose(bias[:, 4].sigmoid(), torch.tensor(0.01))
        assert bias[:, [0, 1, 2, 3, 5, 6]].abs().max() == 0
