"""Configurations from words, and what `train` and `reproduce` do for any comparison."""

import hashlib
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
from experiments.toy_comparison import COMPARISON as UNJUDGED
from experiments.toy_comparison import JUDGED
from safetensors.torch import save_file

from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.phantom.storage import write_store
from cxrtut.data.store import StoreError
from cxrtut.engine.checkpoint import CheckpointError, load
from cxrtut.engine.initial_weights import WeightsError
from cxrtut.engine.stopping import Interrupted
from cxrtut.experiments import biomarker, disease_masks
from cxrtut.experiments.comparison import ConfigurationError, How, override, reproduce, train
from cxrtut.experiments.registered import COMPARISONS, comparison
from cxrtut.experiments.run import Run
from cxrtut.experiments.source import Source
from cxrtut.files import sha256_of_file
from cxrtut.papers.biomarker import SMOKE, make_networks
from cxrtut.records.run_record import read_record_file

pytestmark = pytest.mark.filterwarnings("ignore:.* maps of P >= :UserWarning")  # so few images
SETTINGS = (
    "size=32", "base=4", "depth=1", "critic_base=4", "classifier_width=4", "batch_size=8",
    "steps=4", "warm_up_steps=1", "comparator_steps=2",
)  # fmt: skip
HOW = How(settings=SETTINGS, source=Source(images=60), callbacks=None)
MASKS = How(
    settings=("size=32", "grid_size=8", "classifier_width=4", "batch_size=16", "epochs=0.5",
              "alignment_epochs=0.5", "anchor_images=10"),
    source=Source(images=120), callbacks=None,
)  # fmt: skip
OURS = biomarker.COMPARISON


def run(folder, how=HOW, arm="G-D-C", paper=OURS, **more):
    return train(paper, how, arm=arm, seed=0, folder=folder, **more)


def test_fields_are_replaced_with_values_of_their_type():
    config = override(SMOKE, ["steps=12", "lambda_1=2", "residual=false"])
    assert (config.steps, config.lambda_1, config.residual) == (12, 2.0, False)
    assert isinstance(config.lambda_1, float) and config.base == SMOKE.base
    assert override(SMOKE, []) == SMOKE


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("stepps=3", "expected NAME=VALUE with a name of size, channels, .* got 'stepps=3'"),
        ("steps", "expected NAME=VALUE"),
        ("steps=many", "steps: expected a whole number, got 'many'"),
        ("steps=1.5", "steps: expected a whole number, got '1.5'"),
        ("eta=high", "eta: expected a number, got 'high'"),
        ("residual=maybe", "residual: expected true or false, got 'maybe'"),
        ("batch_size=3", "batch_size: expected an even number, got 3"),
    ],
)
def test_what_cannot_be_is_refused_by_name(setting, words):
    with pytest.raises(ConfigurationError, match=words):
        override(SMOKE, [setting])


def test_wrong_names_are_answered_with_those_there_are():
    with pytest.raises(ConfigurationError, match=r"arm: expected one of 'G-D-C', .*, got 'plain'"):
        OURS.arm("plain")
    with pytest.raises(
        ConfigurationError, match="preset: expected one of paper, colab, cpu, smoke"
    ):
        OURS.configuration("large")
    with pytest.raises(ConfigurationError, match="paper: expected one of biomarker, disease_masks"):
        comparison("masks")


@pytest.mark.parametrize("paper", COMPARISONS)
def test_every_measure_of_a_comparison_says_which_side_is_better(paper):
    ours = COMPARISONS[paper]
    assert set(ours.better().values()) <= {"higher", "lower", "neither"}
    assert ours.own in ours.arms and ours.faithful <= set(ours.presets) and ours.paper == paper


def test_a_run_leaves_logs_samples_checkpoints_system_and_record(tmp_path):
    told = []
    how = replace(
        HOW, command="here", callbacks=lambda name: told.append(name) or (lambda report: None)
    )
    record = run(tmp_path / "run", how)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "warm-up.jsonl", "main.jsonl", "samples", "checkpoints", "system.safetensors",
        "record.json",
    }  # fmt: skip
    assert read_record_file(tmp_path / "run" / "record.json") == record
    assert record.command == "here" and record.configuration["steps"] == 4
    assert 0 < record.values("G-D-C", "test", "pixel_ap")[0] < 1
    assert told == ["biomarker G-D-C warm-up", "biomarker G-D-C main"]
    picture = cv2.imread(str(tmp_path / "run" / "samples" / "step-00000004.png"))
    assert picture.shape == (6 * 32, 4 * 32, 3)
    data = (tmp_path / "run" / "system.safetensors").read_bytes()
    assert record.weights["G-D-C"].sha256 == hashlib.sha256(data).hexdigest()


def test_a_run_is_not_overwritten_but_resumed(tmp_path):
    run(tmp_path)
    with pytest.raises(CheckpointError, match="goes on"):
        run(tmp_path)
    first = read_record_file(tmp_path / "record.json")
    assert run(tmp_path, resume=True).results["G-D-C"][0].test == first.results["G-D-C"][0].test
    with pytest.raises(CheckpointError, match=r"eta is 10.0 in the checkpoint and 1.0 in this run"):
        run(tmp_path, replace(HOW, settings=(*SETTINGS, "eta=1")), resume=True)


@pytest.mark.parametrize(
    ("paper", "how", "arm", "stage"),
    [
        (OURS, HOW, "G-D-C", "warm-up"),
        (disease_masks.COMPARISON, MASKS, "aligned + DM", "plain"),
        (disease_masks.COMPARISON, MASKS, "aligned + DM", "aligner"),
        (disease_masks.COMPARISON, MASKS, "aligned + DM", "aligned"),
    ],
)
def test_a_run_that_is_stopped_in_a_stage_goes_on_bit_for_bit(tmp_path, paper, how, arm, stage):
    """A request to stop that comes in the last step of a stage: the next one does not begin."""

    def stop_in(name):
        asked = name == f"{paper.paper} {arm} {stage}"
        return lambda report: asked and signal.raise_signal(signal.SIGTERM)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, how, arm, paper)
    with pytest.raises(Interrupted):
        run(parts, replace(how, callbacks=stop_in), arm, paper)
    done = {path.stem for path in parts.glob("*.jsonl")}
    assert stage in done and not (parts / "system.safetensors").exists()
    assert done < {path.stem for path in whole.glob("*.jsonl")}
    run(parts, how, arm, paper, resume=True)
    assert sha256_of_file(parts / "system.safetensors") == sha256_of_file(
        whole / "system.safetensors"
    )


@pytest.mark.parametrize(
    ("paper", "change", "error", "told"),
    [
        (OURS, {"settings": ("stepps=3",)}, ConfigurationError, "a name of size"),
        (OURS, {"settings": (*SETTINGS, "channels=3")}, StoreError, "add --set channels=1"),
        (OURS, {"preset": "large"}, ConfigurationError, "preset: expected one of"),
        (
            disease_masks.COMPARISON, {"source": Source(data="pasted"), "settings": ()},
            StoreError, "--data pasted: expected phantom or store",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_said_before_anything_is_written(tmp_path, paper, change, error, told):
    how, out = replace(HOW, **change), tmp_path / "run"
    with pytest.raises(error, match=told):
        run(out, how, arm=paper.own, paper=paper)
    with pytest.raises(error, match=told):
        reproduce(paper, how, seeds=1)
    assert not out.exists()


def test_every_arm_begins_from_the_files_and_the_record_names_their_hash(tmp_path):
    """The first stage takes them, and no later one."""
    config = OURS.configuration("smoke", SETTINGS)
    other = make_networks(config, 5)
    files = {}
    for name in ("generator", "classifier"):
        files[name] = tmp_path / f"{name}.safetensors"
        save_file(other[name].state_dict(), files[name])
    record = run(tmp_path / "r", replace(HOW, begin_from=files))
    assert record.settings["begin from"] == {k: sha256_of_file(p) for k, p in files.items()}
    assert record.settings["precision"] == "float32" and record.settings["processes"] == 1
    for stage, begun in (("warm-up", record.settings["begin from"]), ("main", {})):
        about = load(tmp_path / "r" / "checkpoints" / stage)["configuration"]
        assert about["begin_from"] == begun
    with pytest.raises(WeightsError, match=r"expected a file for 'generator', found none: .*gone"):
        run(tmp_path / "s", replace(HOW, begin_from={"generator": tmp_path / "gone"}))
    with pytest.raises(ConfigurationError, match=r"no stage of 'CAM' has a network .* 'generator'"):
        run(tmp_path / "t", replace(HOW, begin_from={"generator": files["generator"]}), arm="CAM")
    with pytest.raises(ConfigurationError, match="begin_from: expected none"):
        reproduce(OURS, replace(HOW, begin_from=files), seeds=1)


def test_several_processes_do_not_reproduce_one_record(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match="expected one process"):
        reproduce(OURS, HOW, seeds=1)


def test_pasted_biomarkers_need_no_store(tmp_path):
    record = run(tmp_path, replace(HOW, source=Source(data="pasted", images=60)), arm="ED")
    assert record.what.startswith("biomarker on pasted biomarkers (cxrtut simulated")
    assert record.source.startswith("pasted")


def test_a_record_does_not_say_where_somebody_keeps_his_data(tmp_path):
    root = tmp_path / "private" / "store"
    write_store(ChestPhantom(32), root, 60)
    source = Source(data="store", root=root, disease="any")
    run(tmp_path / "run", replace(HOW, source=source), arm="ED")
    assert "private" not in (tmp_path / "run" / "record.json").read_text()


def test_reproduce_has_the_arms_asked_for_and_keeps_their_systems(tmp_path: Path):
    arms = ("ED", "CAM")
    record = reproduce(OURS, HOW, seeds=1, arms=arms, weights_folder=tmp_path)
    assert tuple(record.results) == tuple(record.weights) == arms
    for kept in record.weights.values():
        assert hashlib.sha256((tmp_path / kept.file).read_bytes()).hexdigest() == kept.sha256
    with pytest.raises(ConfigurationError, match="arm: expected one of"):
        reproduce(OURS, HOW, seeds=1, arms=("planar",))


def test_weights_of_other_images_have_another_name(tmp_path):
    pasted = replace(HOW, source=Source(data="pasted", images=60))
    names = [
        reproduce(OURS, how, seeds=1, arms=("ED",), weights_folder=tmp_path).weights["ED"].file
        for how in (HOW, pasted)
    ]
    of_pasted = "pasted_cxrtut_simulated_chest_radiographs"
    assert names == [
        "biomarker-smoke-ED.safetensors",
        f"biomarker-smoke-{of_pasted}-ED.safetensors",
    ]


def test_an_arm_that_trains_nothing_leaves_its_record(tmp_path):
    arm = "average box (boxes)"
    record = run(tmp_path / "deep" / "run", MASKS, arm=arm, paper=disease_masks.COMPARISON)
    names = {path.name for path in (tmp_path / "deep" / "run").iterdir()}
    assert names == {"record.json", "system.safetensors"}
    assert "auroc" not in record.results[arm][0].test


def test_each_paper_has_its_own_number_of_images_unless_told():
    assert biomarker.IMAGES != disease_masks.IMAGES
    assert len(OURS.images(HOW.source, OURS.configuration("smoke", SETTINGS), 0).store) == 60


# A comparison with a judge

TOY = How(callbacks=None, settings=("steps=6",))


def stages_of(do):
    """The stages that are trained, in their order."""
    told = []
    do(replace(TOY, callbacks=lambda stage: told.append(stage) or (lambda report: None)))
    return told


def test_the_judge_is_trained_once_for_all_arms_of_a_seed_and_anew_for_the_next():
    assert stages_of(lambda how: reproduce(JUDGED, how, seeds=2)) == [
        "toy, seed 0, main", "toy, seed 0, judge", "toy, seed 1, main", "toy, seed 1, judge",
    ]  # fmt: skip


def test_every_arm_is_judged_and_the_judge_is_the_same_for_all():
    record = reproduce(JUDGED, TOY, seeds=2)
    for arm in ("own", "still"):
        assert len(record.values(arm, "test", "disagreement")) == 2
        assert min(record.values(arm, "test", "disagreement")) > 0
    config = JUDGED.configuration("smoke", TOY.settings)
    split, run = JUDGED.images(TOY.source, config, 0), Run(seed=0)
    system = JUDGED.arms["still"].train(config, split, run)
    *_, judged = JUDGED.measures_of(config, split, run)
    found = judged.measure(system, split, judged.side)
    assert found == {"disagreement": record.values("still", "test", "disagreement")[0]}
    by_itself = judged.measure(JUDGED.judge(config, split, run), split, "test")
    assert by_itself == {"disagreement": 0.0}


def test_what_is_judged_has_a_better_side_in_the_comparison_and_in_its_record():
    assert JUDGED.better() == {**UNJUDGED.better(), "disagreement": "lower"}
    record = reproduce(JUDGED, TOY, seeds=1, arms=["still"])
    assert record.better == JUDGED.better() and record.direction("disagreement") == "lower"


def test_without_a_judge_a_comparison_measures_what_it_lists_and_trains_nothing_more():
    config = UNJUDGED.configuration("smoke", TOY.settings)
    split = UNJUDGED.images(TOY.source, config, 0)
    assert UNJUDGED.measures_of(config, split, Run()) is UNJUDGED.measures
    assert stages_of(lambda how: reproduce(UNJUDGED, how, seeds=1)) == ["toy, seed 0, main"]
    judged, alone = (reproduce(paper, TOY, seeds=1) for paper in (JUDGED, UNJUDGED))
    for arm in ("own", "still"):
        more = dict(judged.results[arm][0].test)
        more.pop("disagreement")
        assert more == alone.results[arm][0].test


def test_a_run_in_a_folder_keeps_its_judge_and_finds_it_again_when_resumed(tmp_path):
    first = run(tmp_path, TOY, "own", JUDGED)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"main.jsonl", "judge.jsonl", "checkpoints", "record.json"} <= names
    assert (tmp_path / "checkpoints" / "judge").is_dir()
    again = run(tmp_path, TOY, "own", JUDGED, resume=True)
    assert again.results["own"][0].test == first.results["own"][0].test
    together = reproduce(JUDGED, TOY, seeds=1, arms=["own"])
    assert together.results["own"][0].test == first.results["own"][0].test


def test_a_run_that_is_stopped_while_its_judge_is_trained_goes_on_to_the_same_numbers(tmp_path):
    def stop_in(name):
        return lambda report: name == "toy own judge" and signal.raise_signal(signal.SIGTERM)

    whole = run(tmp_path / "whole", TOY, "own", JUDGED)
    with pytest.raises(Interrupted):
        run(tmp_path / "parts", replace(TOY, callbacks=stop_in), "own", JUDGED)
    assert not (tmp_path / "parts" / "record.json").exists()
    parts = run(tmp_path / "parts", TOY, "own", JUDGED, resume=True)
    assert parts.results["own"][0].test == whole.results["own"][0].test
