"""Arms that were run apart stand in one record, on the same seeds and images."""

import pytest
from records.test_run_record import a_record

from cxrtut.records.joined import joined
from cxrtut.records.run_record import ArmRun, RecordError, Weights

IMAGES = [{"source": "toy", "seed": k} for k in range(3)]


def part(arm, n, **change):
    about = {
        "results": {arm: tuple(ArmRun(test={"auroc": 0.1 * k}) for k in range(n))},
        "seeds": tuple(range(n)), "data": IMAGES[:n], "seconds": 10.0 * n, "remarks": (),
        "weights": {arm: Weights(f"{arm}.safetensors", "0" * 64)}, "command": f"run {arm}",
    }  # fmt: skip
    return a_record(**about | change)


def test_every_arm_keeps_its_seeds_and_the_record_has_the_most():
    for one in (joined(part("A", 3), part("B", 2)), joined(part("B", 2), part("A", 3))):
        assert one.seeds == (0, 1, 2) and list(one.data) == IMAGES
        assert one.values("A", "test", "auroc") == pytest.approx([0.0, 0.1, 0.2])
        assert one.values("B", "test", "auroc") == pytest.approx([0.0, 0.1])
        assert set(one.weights) == {"A", "B"} and one.seconds == 50.0
    assert joined(part("A", 3), part("B", 2)).command == "run A\nrun B"


def test_one_record_alone_is_itself_and_three_become_one():
    first = part("A", 2)
    assert joined(first) is first
    assert list(joined(first, part("B", 2), part("C", 1)).results) == ["A", "B", "C"]


def test_a_joined_record_is_faithful_only_if_all_of_it_is():
    assert joined(part("A", 1, faithful=True), part("B", 1, faithful=True)).faithful
    assert not joined(part("A", 1, faithful=True), part("B", 1)).faithful


def test_code_that_differs_or_is_not_known_makes_the_joined_record_stale():
    fresh, other = part("A", 1), part("B", 1)
    assert not joined(fresh, other).is_stale
    (file, *_) = fresh.code
    assert joined(fresh, part("B", 1, code={**fresh.code, file: "1" * 64})).changed_files == (file,)
    assert joined(part("A", 1, code={**fresh.code, file: "1" * 64}), other).changed_files == (file,)
    assert joined(fresh, part("B", 1, code={"nn/unet.py": fresh.code["nn/unet.py"]})).code
    for apart in ((part("A", 1, code={}), other), (fresh, part("B", 1, code={}))):
        assert joined(*apart).is_stale


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paper": "other"}, "paper: expected 'toy' in both records, got 'other'"),
        ({"preset": "cpu"}, "preset: expected 'smoke' in both records, got 'cpu'"),
        ({"configuration": {}}, "configuration: expected .* in both records, got {}"),
        ({"classes": ("Mass",)}, "classes: expected .* in both records, got"),
        ({"seeds": (1, 2)}, r"seeds: expected \(0, 1\) in both records, got \(1, 2\)"),
        ({"data": IMAGES[1:3]}, "data: expected .* in both records, got"),
    ],
)
def test_runs_that_were_not_made_alike_are_not_joined(change, message):
    with pytest.raises(RecordError, match=message):
        joined(part("A", 2), part("B", 2, **change))


def test_an_arm_that_two_records_have_is_not_chosen_silently():
    with pytest.raises(RecordError, match="arms: expected each in one record, got twice A"):
        joined(part("A", 2), part("A", 2))
