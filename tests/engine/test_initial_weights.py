"""Networks that begin from a file."""

import pytest
import torch
from engine.toy import ToyGAN, assert_same, run, weights
from safetensors.torch import save_file
from torch import nn

from cxrtut.engine import checkpoint
from cxrtut.engine.checkpoint import CheckpointError
from cxrtut.engine.initial_weights import WeightsError, begin_from
from cxrtut.files import sha256_of_file


def network(width=2):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width))


@pytest.mark.parametrize("kind", ["safetensors", "pt", "of several"])
def test_a_network_takes_the_weights_of_a_file_and_its_hash_is_told(tmp_path, kind):
    source, others, target = network(), nn.Linear(3, 3), network()
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(source.state_dict(), path)
    elif kind == "pt":
        torch.save(source.state_dict(), path)
    else:
        both = nn.ModuleDict({"generator": source, "generator_b": others})
        torch.save(both.state_dict(), path)
    networks = {"generator": target, "critic": network()}
    untouched = {k: v.clone() for k, v in networks["critic"].state_dict().items()}
    assert begin_from(networks, {"generator": path}) == {"generator": sha256_of_file(path)}
    assert_same(target.state_dict(), source.state_dict())
    assert_same(networks["critic"].state_dict(), untouched)


def test_a_part_that_is_named_like_its_network_is_no_prefix(tmp_path):
    def make():
        return nn.ModuleDict({"features": nn.Linear(2, 2), "classifier": nn.Linear(2, 1)})

    source, target = make(), make()
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    begin_from({"classifier": target}, {"classifier": tmp_path / "w.safetensors"})
    assert_same(target.state_dict(), source.state_dict())
    both = nn.ModuleDict({"classifier": make(), "generator": make()})
    torch.save(both.state_dict(), tmp_path / "w.pt")
    begin_from({"classifier": target}, {"classifier": tmp_path / "w.pt"})
    assert_same(target.state_dict(), both["classifier"].state_dict())


class Planted:
    def __reduce__(self):
        return print, ("code ran",)


def test_what_does_not_fit_is_refused_and_no_code_runs(tmp_path, capsys):
    def refused(match, name="generator", path=tmp_path / "w.pt"):
        with pytest.raises(WeightsError, match=match):
            begin_from({"generator": network()}, {name: path})

    refused(r"expected a file of weights, .*w.pt is none")
    torch.save(network(3).state_dict(), tmp_path / "w.pt")
    refused(r"w.pt does not fit the network 'generator': .*size mismatch for 0.weight")
    refused("expected one of the networks generator, got 'judge'", name="judge")
    torch.save({"0.weight": torch.zeros(2, 1, 3, 3)}, tmp_path / "w.pt")
    refused(r"does not fit the network 'generator': .*Missing key\(s\) in state_dict: \"0.bias\"")
    torch.save([torch.zeros(2)], tmp_path / "w.pt")
    refused("expected a state_dict of tensors, got list")
    torch.save({"0.weight": Planted()}, tmp_path / "w.pt")
    refused("w.pt: expected safetensors or a state_dict: ")
    assert "code ran" not in capsys.readouterr().out
    for name in ("w.pt", "w.safetensors"):
        (tmp_path / name).write_bytes(b"half a file")
        refused(f"{name}: expected safetensors or a state_dict: ", path=tmp_path / name)


def test_a_run_begins_from_its_file_and_a_resumed_one_goes_on_from_the_checkpoint(tmp_path):
    source, by_hand, first, second = (ToyGAN() for _ in range(4))
    with torch.no_grad():
        source.networks["critic"][0].weight.mul_(1.5)
    save_file(source.networks["critic"].state_dict(), tmp_path / "c.safetensors")
    by_hand.networks["critic"].load_state_dict(source.networks["critic"].state_dict())
    run(by_hand, 4)
    files = {"begin_from": {"critic": tmp_path / "c.safetensors"}}
    run(first, 2, checkpoint_dir=tmp_path / "run", **files)
    run(second, 4, checkpoint_dir=tmp_path / "run", resume=True, **files)
    assert_same(weights(second), weights(by_hand))
    told = checkpoint.load(tmp_path / "run")["configuration"]["begin_from"]
    assert told == {"critic": sha256_of_file(tmp_path / "c.safetensors")}


def test_a_resumed_run_must_have_begun_from_the_same_file(tmp_path):
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    save_file(ToyGAN().networks["critic"].state_dict(), one)
    source = ToyGAN()
    with torch.no_grad():
        source.networks["critic"][0].weight.zero_()
    save_file(source.networks["critic"].state_dict(), other)
    settings = {"checkpoint_dir": tmp_path / "run", "resume": True}
    run(ToyGAN(), 2, begin_from={"critic": one}, **settings)
    with pytest.raises(CheckpointError, match=r"configuration differs: begin_from\.critic is "):
        run(ToyGAN(), 4, begin_from={"critic": other}, **settings)
    with pytest.raises(CheckpointError, match=r"this run has no field .begin_from\.critic."):
        run(ToyGAN(), 4, **settings)
