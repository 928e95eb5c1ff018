"""Networks as tables: shapes and numbers by hand, and nothing changed by looking."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrtut.foundations import adversarial
from cxrtut.nn.backbones import VGG19, ResNet10, ResNet18, ResNet50
from cxrtut.nn.critic import Critic
from cxrtut.nn.few_places import FewPlacesConv2d
from cxrtut.nn.patchgan import PatchGAN
from cxrtut.nn.pix2pix_unet import Pix2PixUNet
from cxrtut.nn.unet import UNet
from cxrtut.papers import biomarker, disease_masks
from cxrtut.viz.networks import ROWS, layer_table

Shape = tuple[int, ...]


class Small(nn.Module):
    """Two convolutions, a mean over places that no module does, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Sequential(nn.Conv2d(4, 6, 5, padding=2, bias=False), nn.ReLU())
        self.last = nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.ones(7))

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.body(self.norm(self.first(image))).mean((2, 3)))


def test_rows_are_those_that_one_writes_by_hand() -> None:
    rows = layer_table(Small(), (1, 8, 10), caption="c").rows
    assert [tuple(row.values()) for row in rows] == [
        ("first", "Conv2d 1 → 4, 3 x 3, stride 2; BatchNorm2d", "4 x 4 x 5", 4 * 9 + 4 + 8),
        ("body.0", "Conv2d 4 → 6, 5 x 5; ReLU", "6 x 4 x 5", 6 * 4 * 25),
        ("last", "Linear 6 → 3", "3", 6 * 3 + 3),
        ("Small", "parameters of its own", "–", 7),
        ("total", "Small", "3", 48 + 600 + 21 + 7),
    ]
    assert list(rows[0]) == ["layer", "what it is", "output", "parameters"]


def test_groups_are_opened_as_far_as_one_asks() -> None:
    rows = layer_table(Small(), (1, 8, 8), caption="c", depth=1).rows
    assert [row["layer"] for row in rows] == ["first", "body", "last", "Small", "total"]
    assert rows[1]["what it is"] == "Conv2d 5 x 5, ReLU"
    deep = layer_table(ResNet50(), (3, 64, 64), caption="c", depth=9).rows
    assert sum("Conv2d" in str(row["what it is"]) for row in deep) == 53  # He et al., Table 1


def networks() -> dict[str, tuple[Callable[[], nn.Module], Shape]]:
    points = adversarial.make_networks(0, 64)
    small = biomarker.make_networks(biomarker.SMOKE, 0)
    config = disease_masks.SMOKE
    return {
        "UNet": (UNet, (1, 32, 32)),
        "Critic": (Critic, (1, 128, 128)),
        "PatchGAN": (PatchGAN, (1, 64, 64)),
        "ResNet10": (ResNet10, (1, 64, 64)),
        "ResNet18": (ResNet18, (1, 64, 64)),
        "ResNet50": (ResNet50, (3, 64, 64)),
        "VGG19": (VGG19, (1, 32, 32)),
        "points: generator": (lambda: points["generator"], (2,)),
        "points: critic": (lambda: points["critic"], (2, 1, 1)),
        "aligner": (lambda: disease_masks.make_aligner(config, 0), (1, 64, 64)),
        "masks": (lambda: disease_masks.make_classifier(config, 8, 0), (1, 64, 64)),
        **{f"biomarker: {k}": (lambda n=n: n, (1, 64, 64)) for k, n in small.items()},
    }


@pytest.mark.parametrize("name", networks())
def test_every_network_of_the_book_has_a_short_table_whose_parameters_add_up(name: str) -> None:
    make, shape = networks()[name]
    network = make()
    *rows, total = layer_table(network, shape, caption="c").rows
    numbers = [int(row["parameters"] or 0) for row in rows]
    assert 3 <= len(rows) <= ROWS + 1
    assert sum(numbers) == total["parameters"] == sum(p.numel() for p in network.parameters())
    assert all(row["what it is"] and row["output"] for row in rows)


def test_a_layer_whose_weights_are_used_without_a_call_has_a_row_at_the_end() -> None:
    network = disease_masks.make_classifier(disease_masks.SMOKE, 8, 0)
    row = layer_table(network, (1, 64, 64), caption="c").rows[-2]
    assert tuple(row.values()) == ("classifier", "Linear 128 → 8, not called", "–", 128 * 8 + 8)


class Twice(nn.Module):
    """One layer that runs twice, and outputs of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.modes: list[bool] = []
        self.gradients: list[bool] = []

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        self.modes.append(self.training)
        z = self.layer(self.layer(x))
        self.gradients.append(z.requires_grad)
        return {"a": z, "b": (y, z.sum(1)), "c": None}


def test_inputs_and_outputs_may_be_several_and_a_layer_may_run_twice() -> None:
    network = Twice()
    first, total = layer_table(network, (4,), (3, 5), caption="c").rows
    assert first["what it is"] == "Linear 4 → 4 (runs 2 times)" and first["parameters"] == 20
    assert total["output"] == "4; 3 x 5; one number; –" and total["parameters"] == 20
    assert network.modes == [False] and network.gradients == [False]


def test_looking_leaves_hooks_mode_weights_and_statistics_as_they_were() -> None:
    network = ResNet10()
    network.features[1].eval()
    with torch.no_grad():
        network.train()(torch.rand(4, 1, 64, 64))
    network.features[1].eval()
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    layer_table(network, (1, 64, 64), caption="c")
    with pytest.raises(RuntimeError):
        layer_table(network, (5, 64, 64), caption="c")
    assert [module.training for module in network.modules()] == modes
    assert {True, False} == set(modes)
    assert all(torch.equal(value, before[k]) for k, value in network.state_dict().items())
    for module in network.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_the_layers_come_in_the_order_in_which_they_run() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late, self.early = nn.Linear(3, 2), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.late(self.early(x)))

    rows = layer_table(Backwards(), (4,), caption="c").rows
    assert [row["layer"] for row in rows] == ["early", "late", "total"]


def test_a_network_of_one_layer_and_one_in_double_precision_have_tables() -> None:
    (only, total) = layer_table(nn.Conv2d(2, 3, (1, 3)).double(), (2, 4, 4), caption="c").rows
    assert tuple(only.values()) == ("Conv2d", "Conv2d 2 → 3, 1 x 3", "3 x 4 x 2", 21)
    assert total["output"] == "3 x 4 x 2"


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (FewPlacesConv2d(2, 3, 4, 2, 1), "Conv2d 2 → 3, 4 x 4, stride 2"),
        (Pix2PixUNet(3, 2, 2).output[1], "ConvTranspose2d 4 → 3, 4 x 4, stride 2"),
    ],
)
def test_a_convolution_that_is_computed_in_another_way_is_called_by_its_name(layer, words):
    row = layer_table(layer, (layer.in_channels, 4, 4), caption="c").rows[0]
    assert row["what it is"] == words


def test_what_is_repeated_is_written_once() -> None:
    block = [nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
    network = nn.ModuleDict({"a": nn.Sequential(*block, *block, nn.MaxPool2d(2))})["a"]
    outer = nn.Sequential(network)
    row = layer_table(outer, (4, 8, 8), caption="c", depth=1).rows[0]
    assert row["what it is"] == "Conv2d 3 x 3, ReLU, MaxPool2d"  # the same two modules run twice
    pairs = [layer for _ in range(2) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())]
    row = layer_table(nn.Sequential(nn.Sequential(*pairs)), (4, 8, 8), caption="c", depth=1).rows[0]
    assert row["what it is"] == "2 x (Conv2d 3 x 3, ReLU)"


def test_no_shape_and_no_depth_are_refused() -> None:
    with pytest.raises(ValueError, match="expected the shape of each input"):
        layer_table(Small(), caption="c")
    with pytest.raises(ValueError, match="expected a depth of 1 or more, got 0"):
        layer_table(Small(), (1, 8, 8), caption="c", depth=0)
