"""The stages of the disease-masks paper: each once, in order, and none changed by a later one."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cxrtut.baselines.aligned import Aligned
from cxrtut.data.loader import Loader
from cxrtut.experiments.aligned_loader import AlignedLoader
from cxrtut.experiments.disease_masks import ARMS, split_of
from cxrtut.experiments.mask_stages import Stages, stages_of
from cxrtut.experiments.run import Run
from cxrtut.experiments.source import Source
from cxrtut.localize.location_priors import pseudo_masks
from cxrtut.nn.backbones import stages as resnet_stages
from cxrtut.nn.spatial_transformer import align
from cxrtut.papers.disease_masks import (
    SMOKE,
    disease_mask,
    make_aligner,
    make_classifier,
    maps_and_logits,
    select_confident,
    shared,
    smooth,
)

FEW = ".* maps of P >= "
pytestmark = pytest.mark.filterwarnings(f"ignore:{FEW}:UserWarning")  # of so few images
TINY = replace(
    SMOKE, size=32, grid_size=8, classifier_width=4, epochs=1.0, alignment_epochs=1.0,
    batch_size=16, anchor_images=1000,
)  # fmt: skip
ALIGNED = ["plain", "aligner", "aligned"]


@pytest.fixture(scope="module")
def split():
    return split_of(Source(images=120), TINY, 0)


@pytest.fixture(scope="module")
def stages(split):
    return begun(split)


def begun(split, config=TINY, **how):
    return stages_of(config, split, Run(**how))


def arm(name, stages):
    """An arm that goes on from these stages."""
    run = Run()
    run.once("stages", lambda: stages)
    return ARMS[name].train(stages.config, stages.split, run)


@pytest.fixture
def watched(split):
    """Stages, and the names of those that were trained."""
    trained = []

    def watch(stage):
        trained.append(stage)
        return ()

    return begun(split, callbacks=watch), trained


def network_of(system):
    return system.networks["classifier"]


def state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def images_of(split, rows):
    return split.batch(rows).image


def test_nothing_is_trained_before_it_is_asked_for_and_nothing_twice(watched):
    stages, trained = watched
    assert stages.anchor is stages.anchor and trained == []
    assert stages.aligner is stages.aligner and trained == ["plain", "aligner"]
    assert stages.plain is stages.plain and stages.aligned is stages.aligned
    assert stages.disease_masks is stages.disease_masks
    assert trained == ALIGNED


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("plain", ["plain"]),
        ("aligned", ALIGNED),
        ("aligned + DM", [*ALIGNED, "aligned + DM"]),
        ("aligned, longer", [*ALIGNED, "aligned, longer"]),
        ("aligned + PDM", [*ALIGNED, "aligned + PDM"]),
        ("centre prior", [*ALIGNED, "centre prior"]),
        ("plain + DM", ["plain", "plain + DM"]),
        ("plain, BCE", ["plain, BCE"]),
        ("Wang", ["Wang"]),
        ("Cai", ["plain", "Cai"]),
        ("Liu", ["plain", "aligner", "Liu"]),
        ("Liu, noisy-or", ["plain", "aligner", "Liu, noisy-or"]),
        ("Liu, softmax", ["plain", "aligner", "Liu, softmax"]),
        ("Li (boxes)", ["Li"]),
        ("supervised (boxes)", ["plain", "supervised"]),
        ("average box (boxes)", []),
    ],
)
def test_an_arm_trains_the_stages_that_it_begins_with(watched, name, needed):
    stages, trained = watched
    system = arm(name, stages)
    assert trained == needed
    assert isinstance(system, Aligned) == ("aligner" in needed)
    if "aligner" in needed:
        assert system.networks["aligner"] is stages.aligner


def test_a_second_arm_goes_on_from_the_stages_of_the_first(watched):
    stages, trained = watched
    for name in ("aligned + DM", "DM, binary", "DM, no flip", "DM, shared", "aligned, longer"):
        arm(name, stages)
    assert trained == [
        *ALIGNED, "aligned + DM", "DM, binary", "DM, no flip", "DM, shared", "aligned, longer"
    ]  # fmt: skip


def test_two_runs_of_a_seed_are_equal_and_of_two_seeds_differ(split, stages):
    again, other = begun(split), begun(split, seed=1)
    assert same(state(stages.aligned), state(again.aligned))
    assert same(state(stages.aligner), state(again.aligner))
    assert not same(state(stages.plain), state(other.plain))


def test_stages_move_their_networks(stages):
    assert not same(state(stages.plain), state(stages.classifier()))
    assert not same(state(stages.aligned), state(stages.plain))
    assert not same(state(stages.aligner), state(make_aligner(TINY, 0)))


def test_the_anchor_is_the_mean_of_normal_images_to_learn_from(split, stages):
    mean = images_of(split, split.normal()).mean(0, keepdim=True)
    assert torch.allclose(stages.anchor, mean, atol=1e-6)
    one = begun(split, replace(TINY, anchor_images=1)).anchor
    assert min(float((one - x).abs().max()) for x in images_of(split, split.normal())) < 1e-6


def test_the_anchors_features_can_be_the_mean_of_normal_images(split, stages, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        Stages, "fit", lambda self, stage, task, *rest: seen.update({self.config: task})
    )
    own, mean = TINY, replace(TINY, anchor_features="mean")
    for config in (own, mean):
        one = begun(split, config)
        one.__dict__["plain"] = stages.plain
        assert one.aligner is seen[config].networks["aligner"]
    network = seen[own].features
    assert_close(seen[own].anchor_features, resnet_stages(network, stages.anchor))
    images = smooth(images_of(split, split.normal()), TINY.grid_size)
    expected = [layer.mean(0, keepdim=True) for layer in resnet_stages(network, images)]
    assert_close(seen[mean].anchor_features, expected)
    assert not torch.allclose(seen[mean].anchor_features[3], seen[own].anchor_features[3])


@pytest.mark.parametrize(
    "name", ["aligned + DM", "aligned, longer", "plain + DM", "DM, shared", "Cai", "Liu"]
)
def test_the_stages_before_are_left_as_they_were(stages, name):
    before = state(stages.plain), state(stages.aligner), state(stages.aligned)
    masks = stages.disease_masks.clone()
    network = network_of(arm(name, stages))
    assert same(before[0], state(stages.plain)) and same(before[1], state(stages.aligner))
    assert same(before[2], state(stages.aligned)) and torch.equal(masks, stages.disease_masks)
    assert network is not stages.plain and network is not stages.aligned
    for stage in (stages.plain, stages.aligned):
        assert not stage.masks.any() and not same(state(stage), state(network))


def test_retraining_begins_at_the_weights_of_the_stage_before(split, stages, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        Stages, "fit", lambda self, stage, task, *rest: seen.update({stage: task.networks})
    )
    masks = stages.disease_masks
    stages.retrained("on", masks)
    stages.retrained("plain", None, aligned=False)
    expected = state(stages.aligned) | {"masks": masks}
    assert same(state(seen["on"]["classifier"]), expected)
    assert same(state(seen["plain"]["classifier"]), state(stages.plain))


def test_each_stage_learns_from_images_as_they_are_or_from_aligned_ones(stages, monkeypatch):
    fed = {}
    monkeypatch.setattr(
        Stages, "fit", lambda self, stage, task, loader, *rest: fed.update({stage: loader})
    )
    for name in ("aligned, longer", "aligned + DM", "plain + DM", "plain, BCE", "Wang", "Liu"):
        arm(name, stages)
    stages.classify("aligned", stages.classifier(), stages.aligned_loader)
    for stage, loader in fed.items():
        aligned = stage.startswith("aligned") or stage == "Liu"
        assert isinstance(loader, AlignedLoader if aligned else Loader), stage
        assert not aligned or loader.aligner is stages.aligner
    assert len(fed) == 7


def test_all_arms_train_as_long_as_the_one_with_masks(split, monkeypatch):
    stages, epochs = begun(split), {}

    def fit(self, stage, task, loader, n, batch_size):
        epochs[stage] = n

    monkeypatch.setattr(Stages, "fit", fit)
    for name in ("Wang", "Cai", "Liu", "Li (boxes)", "supervised (boxes)", "aligned, longer"):
        arm(name, stages)
    once = stages.config.epochs
    assert epochs["plain"] == epochs["aligned"] == once
    for after in ("Cai", "supervised", "aligned, longer"):  # behind one of these
        assert epochs[after] == once
    for alone in ("Wang", "Liu", "Li"):
        assert epochs[alone] == 2 * once


def test_the_supervised_arm_sees_the_validation_images_alone(stages, monkeypatch):
    fed = {}
    monkeypatch.setattr(
        Stages, "fit", lambda self, stage, task, loader, *rest: fed.update({stage: loader})
    )
    system = arm("supervised (boxes)", stages)
    rows = fed["supervised"].order(0, 0)
    assert set(rows.tolist()) == set(stages.split.validation.tolist())
    assert len(rows) >= stages.config.batch_size
    assert same(state(system.networks["classifier"]), state(stages.plain))
    assert system.networks["classifier"] is not stages.plain


def test_masks_are_not_trained(stages):
    network = network_of(stages.retrained("half", torch.full_like(stages.aligned.masks, 0.5)))
    assert (network.masks == 0.5).all()
    assert "masks" not in dict(network.named_parameters())


def test_each_arm_has_the_masks_that_its_name_says(stages):
    of = {
        name: network_of(arm(name, stages)).masks
        for name in (
            "plain", "aligned", "aligned, longer", "plain + DM", "aligned + DM", "DM, binary",
            "DM, shared", "DM, no flip", "aligned + PDM", "centre prior",
        )
    }  # fmt: skip
    for name in ("plain", "aligned", "aligned, longer"):
        assert not of[name].any()
    masks = stages.disease_masks
    assert torch.equal(of["aligned + DM"], masks)
    assert torch.equal(of["plain + DM"], stages.masks(stages.plain, aligned=False)[0])
    assert torch.equal(of["DM, binary"], (masks > 0).float())
    assert set(of["DM, binary"].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(of["DM, shared"], shared(masks))
    assert (of["DM, shared"] == of["DM, shared"][0]).all() and of["DM, shared"].any()
    assert torch.equal(of["DM, no flip"], stages.masks(stages.aligned, aligned=True, flip=False)[0])
    assert torch.equal(of["aligned + PDM"], pseudo_masks(stages.split.classes, 4))
    assert (of["centre prior"] > 0).all()
    assert (of["centre prior"] == of["centre prior"][0]).all()
    different = [of[name] for name in of if of[name].any()]
    for i, one in enumerate(different):
        assert all(not torch.equal(one, other) for other in different[i + 1 :])


@pytest.mark.parametrize(("min_probability", "fewest"), [(0.8, 20), (0.0, 1), (1.0, 1)])
@pytest.mark.parametrize("aligned", [True, False])
def test_a_mask_is_equation_3_on_the_positives_to_learn_from(
    split, stages, min_probability, fewest, aligned
):
    config = replace(TINY, min_probability=min_probability, fewest=fewest)
    network = stages.aligned
    masks, _ = like(stages, config=config).masks(network, aligned=aligned)
    images = images_of(split, split.train)
    images = align(stages.aligner, images)[0] if aligned else images
    maps, logits = maps_and_logits(network, images)
    labels = torch.from_numpy(split.store.labels[split.train]).float()
    for k, name in enumerate(split.classes):
        rows = select_confident(
            logits[:, k].sigmoid(), labels[:, k], min_probability=min_probability, fewest=fewest
        )
        assert len(rows) and labels[rows, k].all()
        by_hand = disease_mask(maps[rows, k], symmetric=name != "Cardiomegaly")
        assert torch.allclose(masks[k], by_hand, atol=1e-4)


def test_masks_reach_one_and_have_nothing_below_the_threshold(stages):
    masks = stages.disease_masks
    assert torch.equal(masks.amax((1, 2)), torch.ones(len(masks)))
    assert masks[masks > 0].min() >= TINY.mask_threshold
    assert not masks.requires_grad


def test_all_masks_but_the_hearts_are_mirror_images_unless_they_are_not_flipped(split, stages):
    flipped = stages.disease_masks
    not_flipped = stages.masks(stages.aligned, aligned=True, flip=False)[0]
    heart = split.classes.index("Cardiomegaly")
    for k in range(8):
        symmetric = torch.allclose(flipped[k], flipped[k].flip(-1), atol=1e-6)
        assert symmetric == (k != heart)
    assert torch.equal(flipped[heart], not_flipped[heart])
    assert not torch.equal(flipped, not_flipped)


def test_making_masks_in_parts_gives_the_same(stages, monkeypatch):
    masks = stages.masks(stages.aligned, aligned=True)[0]
    monkeypatch.setattr(
        "cxrtut.experiments.mask_stages.row_parts",
        lambda rows: [rows[i : i + 7] for i in range(0, len(rows), 7)],
    )
    assert torch.allclose(masks, stages.masks(stages.aligned, aligned=True)[0], atol=1e-4)


def changed(split, classes=None, **arrays):
    """The split with other labels, images or names of classes."""
    store = split.store
    names = classes or split.classes
    inner = replace(store.store, **arrays, classes=names)
    return replace(split, store=replace(store, store=inner, classes=names))


def like(stages, split=None, config=None):
    """Others on the trained networks of these."""
    made = Stages(config or stages.config, split or stages.split, Run())
    made.__dict__ |= {name: getattr(stages, name) for name in ("plain", "aligner", "aligned")}
    return made


def test_test_images_do_not_shape_the_masks(split, stages):
    labels, images = split.store.store.labels.copy(), split.store.store.images.copy()
    labels[split.test], images[split.test] = 1, 0
    blind = like(stages, changed(split, labels=labels, images=images))
    assert not torch.equal(blind.split.batch(split.test).image, split.batch(split.test).image)
    assert torch.equal(blind.masks(stages.aligned, aligned=True)[0], stages.disease_masks)


def test_a_class_without_a_positive_gets_an_empty_mask_and_a_warning(split, stages):
    labels = split.store.store.labels.copy()
    labels[np.ix_(split.train, [3])] = 0
    without = like(stages, changed(split, labels=labels))
    with pytest.warns(UserWarning, match="Infiltration: no positive image to learn from, no mask"):
        masks, _ = without.masks(stages.aligned, aligned=True)
    assert not masks[3].any() and masks[[0, 1, 2, 4, 5, 6, 7]].flatten(1).any(1).all()


def test_too_few_sure_maps_are_warned_of_and_counted(split, stages):
    told = r"Mass: \d maps of P >= 0.99; the mask is of the \d+ with the highest P"
    sterner = like(stages, config=replace(TINY, min_probability=0.99))
    with pytest.warns(UserWarning, match=told):
        _, counted = sterner.masks(stages.aligned, aligned=True)
    assert set(counted) == set(split.classes) and max(counted.values()) < 20


@pytest.mark.filterwarnings("error")
def test_where_all_positives_are_sure_there_is_nothing_to_warn_of(stages):
    like(stages, config=replace(TINY, min_probability=0.0)).masks(stages.aligned, aligned=True)


def test_sure_maps_are_counted_by_class(split, stages):
    labels = split.store.labels[split.train] > 0
    aligned, _ = align(stages.aligner, images_of(split, split.train))
    probability = maps_and_logits(stages.aligned, aligned)[1].sigmoid().numpy()
    middle = float(np.median(probability[labels]))
    lower = like(stages, config=replace(TINY, min_probability=middle, fewest=1))
    _, counted = lower.masks(stages.aligned, aligned=True)
    by_hand = ((probability >= middle) & labels).sum(0)
    assert len(set(by_hand)) > 2
    assert counted == dict(zip(split.classes, by_hand.tolist(), strict=True))


def test_how_many_maps_were_sure_is_kept(split, stages):
    sure = like(stages, config=replace(TINY, min_probability=0.0))  # or all numbers are 0
    assert sure.disease_masks is not None
    _, counted = sure.masks(sure.aligned, aligned=True)
    assert sure.n_confident == counted and list(counted) == list(split.classes)
    assert arm("aligned + DM", sure).n_confident == counted and all(counted.values())


def test_only_the_eight_classes_of_the_paper_have_masks(split, stages):
    names = tuple("Hernia" if name == "Mass" else name for name in split.classes)
    other = like(stages, changed(split, classes=names))
    masks, counted = other.masks(stages.aligned, aligned=True)
    mass = names.index("Hernia")
    assert not masks[mass].any() and stages.disease_masks[mass].any() and "Hernia" not in counted
    rest = [k for k in range(len(names)) if k != mass]
    assert torch.equal(masks[rest], stages.disease_masks[rest])


def test_a_system_sees_images_through_its_aligner(split, stages):
    images = images_of(split, split.test)
    aligned, _ = align(stages.aligner, images)
    _, logits = maps_and_logits(stages.aligned, aligned)
    found = arm("aligned", stages).predict(images).scores
    torch.testing.assert_close(found, logits.double().sigmoid())
    _, logits = maps_and_logits(stages.plain, images)
    found = arm("plain", stages).predict(images).scores
    torch.testing.assert_close(found, logits.double().sigmoid())


def test_a_retrained_system_looks_with_its_masks(split, stages):
    network = network_of(stages.retrained("look with masks", stages.disease_masks))
    images = images_of(split, split.test)
    without = copy.deepcopy(network)
    without.masks.zero_()
    bare = maps_and_logits(without, images)[0]
    masked = maps_and_logits(network, images)[0]
    assert torch.allclose(masked, (1 + stages.disease_masks) * bare, atol=1e-5)


def test_a_classifier_has_a_column_for_each_class(split):
    network = begun(split, seed=3).classifier()
    assert network.masks.shape == (8, 4, 4)
    assert same(state(network), state(make_classifier(TINY, 8, 3)))


def test_a_folder_gets_a_log_and_checkpoints_of_each_stage(split, tmp_path):
    stages = begun(split, folder=tmp_path)
    assert stages.aligner is not None
    assert {path.name for path in tmp_path.iterdir()} == {
        "plain.jsonl", "aligner.jsonl", "checkpoints"
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"plain", "aligner"}


def test_without_a_folder_nothing_is_written(split, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert begun(split).plain is not None
    assert not list(tmp_path.iterdir())
