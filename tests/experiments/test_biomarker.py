"""The comparisons of the Biomarker paper, in small."""

from dataclasses import replace

import pytest
import torch
from cxrtut.experiments.studies import phantom_study

from cxrtut.data.store import StoreError
from cxrtut.experiments import biomarker as experiment
from cxrtut.experiments.biomarker import (
    ARMS,
    Comparators,
    activation_maps,
    compare,
    comparison_table,
    score,
    score_removal,
    train_arm,
)
from cxrtut.nn.backbones import VGG19, ResNet10, ResNet18
from cxrtut.papers.biomarker import SMOKE

TINY = replace(
    SMOKE, size=32, base=4, depth=1, critic_base=4, classifier_width=4, batch_size=8, steps=3,
    pretraining_steps=2, warm_up_steps=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def study():
    return phantom_study(32, n=60)


def test_a_perfect_map_scores_one_and_a_constant_one_the_chance():
    truth = torch.zeros(3, 8, 8, dtype=torch.bool)
    truth[:, :2, :4] = True
    perfect = score(truth.float() + 0.5, truth)
    assert perfect["AP"] == perfect["AP, one range"] == 1.0
    assert perfect["chance"] == 0.125 and perfect["AP, image"]["mean"] == 1.0
    flat = score(torch.ones(3, 8, 8), truth)
    assert flat["AP"] == pytest.approx(0.125) and flat["AP, image"]["n"] == 3


def test_each_image_is_normalised_before_pixels_are_pooled():
    truth = torch.zeros(2, 4, 4, dtype=torch.bool)
    truth[:, 0] = True
    heat = truth.float()
    heat[1] = 0.01 * heat[1]  # a faint map that points right
    heat[0, 3] = 0.5  # and a strong one with a mistake
    result = score(heat, truth)
    assert result["AP"] == 1.0 and result["AP, one range"] < 1.0


def test_removal_is_judged_by_the_healthy_twin(study):
    batch = study.store.batch(study.held_out)
    perfect, nothing = score_removal(batch, batch.healthy), score_removal(batch, batch.image)
    assert perfect["removal error"] == 0 and nothing["removal error"] == 1
    assert nothing["damage"] == 0 and perfect["damage"] < 3
    worse = score_removal(batch, (batch.image + 0.1).clamp(-1, 1))
    assert worse["damage"] == pytest.approx(12.75, rel=0.05)
    assert score_removal(replace(batch, healthy=None), batch.image) == {}


def test_stages_before_the_main_training_move_what_they_should(study):
    def begins_with(arm, **change):
        seen = {}

        def prepare(task):
            for name in ("generator", "classifier"):
                weights = task.networks[name].parameters()
                seen[name] = torch.cat([w.detach().flatten() for w in weights])
            return []

        train_arm(arm, replace(TINY, **change), study, prepare=prepare)
        return seen["generator"], seen["classifier"]

    g, c = begins_with("G-C", pretraining_steps=0, warm_up_steps=0)
    pretrained, same_c = begins_with("G-C", pretraining_steps=2, warm_up_steps=0)
    assert not torch.equal(g, pretrained) and torch.equal(c, same_c)
    same_g, warm = begins_with("G-C", pretraining_steps=0, warm_up_steps=2)
    assert not torch.equal(c, warm) and torch.equal(g, same_g)
    _, cold = begins_with("G-D", pretraining_steps=0, warm_up_steps=2)
    assert torch.equal(c, cold)


def test_an_arm_resumes_where_it_was(study, tmp_path):
    whole = train_arm("G-D-C", TINY, study)
    train_arm("G-D-C", replace(TINY, steps=2), study, out=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"pretraining", "warm-up", "checkpoints"}
    resumed = train_arm("G-D-C", TINY, study, out=tmp_path, resume=True)
    for name in whole.networks:
        pairs = zip(
            whole.networks[name].state_dict().values(),
            resumed.networks[name].state_dict().values(),
            strict=True,
        )
        assert all(torch.equal(a, b) for a, b in pairs)


def test_activation_maps_of_the_small_network_and_of_the_papers():
    images = torch.rand(2, 1, 32, 32) * 2 - 1
    small = ResNet10(1, 4).eval()
    maps = activation_maps(Comparators(small, small), images)
    assert list(maps) == ["CAM", "Grad-CAM-1", "Grad-CAM-2"]
    assert all(heat.shape == (2, 32, 32) for heat in maps.values())
    with torch.device("meta"):
        large = Comparators(ResNet18(3), VGG19(3))
    features = large.for_grad_cam.features
    assert large.layers == (features.conv3_4, features.conv5_4)


def test_a_comparison_has_every_method_and_every_seed():
    record = compare(
        replace(TINY, pretraining_steps=0), lambda seed: phantom_study(32, n=60, seed=seed),
        seeds=2, comparator_steps=3, command="here",
    )  # fmt: skip
    assert list(record["results"]) == [*ARMS, "CAM", "Grad-CAM-1", "Grad-CAM-2"]
    assert all(len(runs) == 2 for runs in record["results"].values())
    assert record["seeds"] == [0, 1] and record["command"] == "here"
    prints = [value for key, value in record["data"].items() if key.startswith("fingerprint")]
    assert len(set(prints)) == 2
    for protocol in ("same images", "held out"):
        rows = comparison_table(record, protocol)
        assert [row["method"] for row in rows] == list(record["results"])
        assert all(0 <= row["AP"] <= 1 and row["chance"] > 0 for row in rows)
        assert rows[0]["left of the lesion"] is not None and rows[-1]["left of the lesion"] is None
    assert "accuracy" in record["results"]["CAM"][0]
    aurocs = [run["held out"]["AUROC of the mean heat"] for run in record["results"]["G-D"]]
    assert all(0 <= area <= 1 for area in aurocs)


def test_a_study_without_ground_truth_is_refused_before_anything_is_trained(study, monkeypatch):
    monkeypatch.setattr(experiment, "train_arm", None)  # would fail, were it called
    blind = replace(study, same=study.same[:0])
    with pytest.raises(StoreError, match="expected masks or boxes to score against, got none"):
        compare(TINY, lambda seed: blind, seeds=1)


def test_the_presets_are_those_of_the_paper_file():
    assert list(experiment.PRESETS) == ["paper", "colab", "smoke"]
