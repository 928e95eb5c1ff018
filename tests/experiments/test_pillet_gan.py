"""The comparison of the PILLET-GAN paper, in small."""

import re
from dataclasses import asdict, replace
from itertools import islice

import numpy as np
import pytest
import torch

import cxrtut
from cxrtut.data.sample import System
from cxrtut.data.split import one_disease
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.engine.loop import train as train_loop
from cxrtut.evaluation.translation import CHANGE_BETTER, SHARES
from cxrtut.experiments import pillet_gan as experiment
from cxrtut.experiments.comparison import How, measure_all, train
from cxrtut.experiments.pillet_gan import COMPARISON, VARIANTS, check, train_chexnet
from cxrtut.experiments.run import Run
from cxrtut.experiments.source import Source
from cxrtut.files import plain_name
from cxrtut.papers.pillet_gan import PAPER, SMOKE

SETTINGS = (
    "size=32", "base=4", "residual_blocks=1", "discriminator_base=4", "halvings=2",
    "batch_size=4", "steps=6", "critic_steps=2", "classifier_steps=3", "vagan_base=2",
    "vagan_long=2", "vagan_first=1",
)  # fmt: skip
TINY = COMPARISON.configuration("smoke", SETTINGS)
SOURCE = Source(images=60)
HOW = How(settings=SETTINGS, source=SOURCE, callbacks=None)
GENERATORS = [arm for arm in COMPARISON.arms if arm != "CheXNet"]
CHANGED = set(CHANGE_BETTER) | {"residual_ratio", "background_change", "twin_error"}
JUDGED = {"translated", "translated_abnormal", "translated_normal", "judge"}


@pytest.fixture(scope="module")
def split():
    return COMPARISON.images(SOURCE, TINY, 0)


@pytest.fixture(scope="module")
def trained(split):
    """Every arm, the stages that were trained for it, the batches of each and the numbers."""
    told, batches, systems, numbers = [], {}, {}, {}

    def trainer(task, loader, *, configuration, steps, batch_size, **how):
        told.append(configuration["stage"])
        batches.setdefault(configuration["stage"], []).append((steps, batch_size))
        return train_loop(
            task, loader, configuration=configuration, steps=steps, batch_size=batch_size, **how
        )

    run = Run(trainer=trainer)
    for name, arm in COMPARISON.arms.items():
        systems[name] = arm.train(TINY, split, run)
        measures = COMPARISON.measures_of(TINY, split, run)
        numbers[name] = measure_all(systems[name], split, measures, 0.0).test
    return run, told, batches, systems, numbers


def flat(network):
    return torch.cat([w.detach().flatten() for w in network.parameters()])


def test_every_arm_is_trained_and_what_comes_out_moved(split, trained):
    _, _, _, systems, _ = trained
    for name, arm in COMPARISON.arms.items():
        system, before = systems[name], arm.build(TINY, split.classes, 0)
        assert isinstance(system, System) and system.classes == before.classes == ("Pneumonia",)
        assert (system.size, system.channels) == (32, 1)
        (network,), (same,) = system.networks.values(), before.networks.values()
        assert not torch.equal(flat(network), flat(same)), name
        assert [k for k, _ in network.named_parameters()] == [k for k, _ in same.named_parameters()]


def test_every_arm_is_measured_and_the_generators_are_judged(trained):
    *_, numbers = trained
    for name, found in numbers.items():
        known = {k for k, value in found.items() if value is not None}
        assert 0 <= found["pixel_auroc"] <= 1 and 0 <= found["pixel_ap"] <= 1
        assert 0 <= found["auroc_max_heat"] <= 1 and 0 <= found["auroc_mean_heat"] <= 1
        assert known <= set(COMPARISON.better())
        if name == "CheXNet":
            assert not known & (CHANGED | JUDGED) and 0 <= found["accuracy"] <= 1
        else:
            assert known >= CHANGED | JUDGED and "accuracy" not in known
    judge = {name: numbers[name]["judge"] for name in GENERATORS}
    assert len(set(judge.values())) == 1  # of the same images by the same network


def test_all_generators_get_as_many_batches_and_the_judge_is_trained_once(trained):
    _, told, batches, _, _ = trained
    assert told == ["CheXNet", *["main"] * len(GENERATORS)]
    assert set(batches["main"]) == {(TINY.steps, TINY.batch_size)}
    assert batches["CheXNet"] == [(TINY.classifier_steps, TINY.batch_size)]


def test_the_judge_is_the_arm_of_that_name_and_frozen(split, trained):
    run, told, _, systems, _ = trained
    before = len(told)
    judge = COMPARISON.judge(TINY, split, run)
    assert judge is systems["CheXNet"] is train_chexnet(TINY, split, run)
    assert len(told) == before
    network = judge.networks["classifier"]
    assert not network.training and not any(w.requires_grad for w in network.parameters())


def test_the_classifier_weighs_the_rarer_kind_more(monkeypatch, split):
    normal, abnormal = split.normal(), split.abnormal()
    rare = replace(split, train=np.concatenate([normal, abnormal[: len(abnormal) // 3]]))
    seen = []
    monkeypatch.setattr(
        experiment, "CheXNet", lambda network, weights, **_: seen.append(weights) or None
    )
    run = Run(trainer=lambda *_, **__: [])
    monkeypatch.setattr(Run, "fit", lambda *_, **__: [])
    train_chexnet(SMOKE, rare, run)
    n, p = len(rare.normal()), len(rare.abnormal())
    torch.testing.assert_close(seen[0], torch.tensor([p, n]) / (n + p))
    assert seen[0][1] > seen[0][0]  # w_+ of the diseased, of whom there are fewer


def test_the_judge_of_a_seed_does_not_depend_on_which_arm_asks_for_it(split, trained):
    alone = train_chexnet(TINY, split, Run())
    assert torch.equal(
        flat(alone.networks["classifier"]), flat(trained[3]["CheXNet"].networks["classifier"])
    )


def test_the_order_of_the_arms_changes_no_network(split, trained):
    for arm in ("PILLET-GAN", "VA-GAN"):
        again = COMPARISON.arms[arm].train(TINY, split, Run())
        assert torch.equal(
            flat(again.networks["generator"]), flat(trained[3][arm].networks["generator"])
        )


@pytest.mark.parametrize(
    ("arm", "changed"),
    [
        ("PILLET-GAN", {}),
        ("w/o SAB", {"attention": "none"}),
        ("no target identity", {"lambda_target": 0.0}),
        ("no origin identity", {"lambda_origin": 0.0}),
        ("A * G'", {"attention": "plain"}),
        ("tanh of the sum", {"output": "tanh"}),
    ],
)
def test_a_variant_differs_from_the_method_in_what_its_name_says(monkeypatch, split, arm, changed):
    told = []

    class Told(Exception):
        pass

    def task(config, *, seed, device):
        told.append((config, seed))
        raise Told

    monkeypatch.setattr(experiment, "PilletGAN", task)
    with pytest.raises(Told):
        COMPARISON.arms[arm].train(TINY, split, Run(seed=3))
    ((config, seed),) = told
    assert seed == 3
    kept = asdict(TINY)
    assert {k: v for k, v in asdict(config).items() if v != kept[k]} == changed
    generator = COMPARISON.arms[arm].build(TINY, split.classes, 0).networks["generator"]
    assert (generator.kind, generator.output) == (config.attention, config.output)
    assert hasattr(generator, "attention") == (arm != "w/o SAB")


def test_variants_end_at_other_weights_than_the_method(trained):
    ends = [flat(trained[3][arm].networks["generator"]) for arm in VARIANTS]
    for i, one in enumerate(ends):
        for other in ends[i + 1 :]:
            assert one.shape != other.shape or not torch.equal(one, other)


def test_fixed_point_gan_is_no_stargan_though_they_begin_alike(split, trained):
    star, fixed = (
        COMPARISON.arms[a].build(TINY, split.classes, 0) for a in ("StarGAN", "Fixed-Point GAN")
    )
    assert torch.equal(flat(star.networks["generator"]), flat(fixed.networks["generator"]))
    images = split.batch(split.test).image
    assert not torch.equal(star.predict(images).image, fixed.predict(images).image)
    star, fixed = (trained[3][arm].networks["generator"] for arm in ("StarGAN", "Fixed-Point GAN"))
    assert not torch.equal(flat(star), flat(fixed))


def test_all_arms_of_another_seed_begin_from_other_weights(split):
    for name, arm in COMPARISON.arms.items():
        (one,), (same,), (other,) = (
            arm.build(TINY, split.classes, seed).networks.values() for seed in (0, 0, 1)
        )
        assert torch.equal(flat(one), flat(same)) and not torch.equal(flat(one), flat(other)), name


@pytest.mark.parametrize("arm", COMPARISON.arms)
def test_an_arm_that_makes_no_step_is_the_one_that_was_built_from_its_seed(split, arm):
    config = replace(TINY, steps=0, classifier_steps=0)
    (one,) = COMPARISON.arms[arm].train(config, split, Run(seed=3)).networks.values()
    (other,) = COMPARISON.arms[arm].build(config, split.classes, 3).networks.values()
    assert torch.equal(flat(one), flat(other))


@pytest.mark.parametrize("arm", ["A * G'", "CheXNet"])
def test_a_trained_arm_is_loaded_again_with_the_same_answers(tmp_path, split, arm):
    record = train(COMPARISON, HOW, arm=arm, seed=0, folder=tmp_path)
    loaded = cxrtut.load(tmp_path)
    assert (loaded.paper, loaded.arm, loaded.classes) == ("pillet_gan", arm, ("Pneumonia",))
    images = split.batch(split.test[:5]).image
    again = COMPARISON.arms[arm].train(TINY, split, Run())
    for name in ("scores", "heatmap", "image"):
        one, other = (getattr(s.predict(images), name) for s in (loaded.system, again))
        assert (one is None and other is None) or torch.equal(one, other)
    found = {k for k, v in record.results[arm][0].test.items() if v is not None}
    assert found >= JUDGED if arm != "CheXNet" else "accuracy" in found
    stages = {path.stem for path in tmp_path.glob("*.jsonl")}
    assert stages == ({"CheXNet"} if arm == "CheXNet" else {"main", "CheXNet"})


def test_no_two_arms_share_a_file_name():
    names = [plain_name(arm) for arm in COMPARISON.arms]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)


def test_of_rsna_what_is_not_normal_and_no_opacity_is_in_neither_domain():
    """A third of the images each; the middle third is never learnt from nor tested."""
    readings, n = ["Normal", "No Lung Opacity / Not Normal", "Lung Opacity"], 150
    table = [
        {"name": f"n{i}", "patient": f"p{i}", "split": "train", "reading": readings[i % 3]}
        for i in range(n)
    ]
    labels = (np.arange(n) % 3 == 2).astype(np.uint8)[:, None]
    store = ArrayStore.from_arrays(
        np.zeros((n, 1, 8, 8), np.uint8), labels, ("Pneumonia",), table_rows=table
    )
    split = one_disease(store)
    (batch,) = islice(
        split.loader(with_targets=True).batches(batch_size=len(split.train), seed=0), 1
    )
    learnt = batch.index.tolist()
    assert sorted(learnt) == split.train.tolist()
    said = set(store.table["reading"][[*learnt, *split.test]])
    assert said == {"Normal", "Lung Opacity"}
    for side in ("train", "test"):
        assert set(store.table["reading"][split.normal(side)]) == {"Normal"}
        assert set(store.table["reading"][split.abnormal(side)]) == {"Lung Opacity"}


def test_images_without_an_outline_on_the_test_side_are_refused(split):
    check(split)
    store = split.store.store
    none = {k: getattr(store.boxes, k)[:0] for k in ("row", "label", "xyxy", "origin")}
    bare = replace(store, masks=None, boxes=replace(store.boxes, **none))
    blind = replace(split, store=replace(split.store, store=bare))
    with pytest.raises(StoreError, match="expected masks or boxes on test images, got none"):
        check(blind)
    with pytest.raises(StoreError, match="on test images, got none"):
        check(replace(split, test=split.normal("test")))  # those to learn from are outlined


def test_the_presets_and_the_own_arm_are_those_of_the_paper_file():
    assert list(COMPARISON.presets) == ["paper", "colab", "cpu", "smoke"]
    assert COMPARISON.presets["paper"] == PAPER and COMPARISON.presets["smoke"] == SMOKE
    assert COMPARISON.own == "PILLET-GAN" and VARIANTS[COMPARISON.own] == {}
    assert {f"flipped@{share:g}" for share in SHARES} <= set(COMPARISON.better())
