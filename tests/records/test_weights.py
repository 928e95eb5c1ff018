"""A trained system as one file."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cxrtut.engine.initial_weights import WeightsError
from cxrtut.records.weights import Description, load_networks, read_description, save_system

ABOUT = Description("toy", "A", {"steps": 3, "rate": 0.5}, ("Mass", "Nodule"))


class System:
    """Two networks and a part without parameters."""

    classes, size, channels = ABOUT.classes, 8, 1

    def __init__(self, width=2):
        self.networks = {
            "generator": nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width)),
            "classifier": nn.Linear(2, 1), "nothing": nn.Identity(),
        }  # fmt: skip

    def predict(self, images): ...


def test_what_is_saved_is_loaded_bit_for_bit_and_ready(tmp_path):
    one, other = System(), System()
    one.networks["generator"](torch.randn(4, 1, 8, 8))  # moves the running statistics
    path = tmp_path / "weights" / "g.safetensors"
    sha256 = save_system(one, ABOUT, path)
    load_networks(other, path)
    for name, network in one.networks.items():
        loaded = other.networks[name].state_dict()
        assert all(torch.equal(loaded[k], v) for k, v in network.state_dict().items())
    assert not other.networks["generator"].training
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [p.name for p in path.parent.iterdir()] == ["g.safetensors"]


def test_a_file_says_what_it_is(tmp_path):
    save_system(System(), ABOUT, tmp_path / "g.safetensors")
    assert read_description(tmp_path / "g.safetensors") == ABOUT


def test_the_same_system_is_the_same_file(tmp_path):
    system = System()
    one = save_system(system, ABOUT, tmp_path / "a.safetensors")
    assert one == save_system(system, ABOUT, tmp_path / "b.safetensors")
    other = Description("toy", "B", ABOUT.configuration, ABOUT.classes)
    assert one != save_system(system, other, tmp_path / "a.safetensors")


def test_other_networks_are_refused(tmp_path):
    path = tmp_path / "g.safetensors"
    save_system(System(), ABOUT, path)
    with pytest.raises(WeightsError, match=r"holds another network 'generator': .*size mis"):
        load_networks(System(width=3), path)
    less = System()
    del less.networks["classifier"]
    told = r"expected networks \['generator'\], got \['classifier', 'generator'\]"
    with pytest.raises(WeightsError, match=told):
        load_networks(less, path)


def test_a_broken_file_and_other_weights_are_refused(tmp_path):
    broken, other = tmp_path / "broken.safetensors", tmp_path / "other.safetensors"
    broken.write_bytes(b"nothing")
    save_file({"weight": torch.zeros(2)}, other)
    for read in (read_description, lambda path: load_networks(System(), path)):
        with pytest.raises(WeightsError, match=r"broken.safetensors: expected a file of weights"):
            read(broken)
    with pytest.raises(WeightsError, match="expected the weights of a cxrtut system, got other"):
        read_description(other)
    with pytest.raises(WeightsError, match="expected a file of weights"):
        read_description(tmp_path / "absent.safetensors")


def test_a_network_in_the_layout_of_a_gpu_is_saved_too(tmp_path):
    one, other = System(), System()
    for network in one.networks.values():
        network.to(memory_format=torch.channels_last)
    path = tmp_path / "g.safetensors"
    save_system(one, ABOUT, path)
    load_networks(other, path)
    for name, network in one.networks.items():
        loaded = other.networks[name].state_dict()
        assert all(torch.equal(loaded[k], v) for k, v in network.state_dict().items())
