"""Who is shown what, and what comes of the answers."""

import csv

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from cxrtut.evaluation.reader_study import ReaderStudy
from cxrtut.metrics.proportions import wilson_interval


def images_of(n, level):
    return (
        torch.full((n, 4, 4), level, dtype=torch.uint8)
        + torch.arange(n, dtype=torch.uint8)[:, None, None]
    )


def study_of(seed=0):
    return ReaderStudy({"Real": images_of(5, 0), "Pix2Pix": images_of(7, 100)}, seed)


def test_every_image_is_shown_once_in_an_order_of_the_seed():
    study = study_of()
    assert len(study) == 12 and study.position == 0
    assert sorted(study.order) == sorted(
        [("Real", i) for i in range(5)] + [("Pix2Pix", i) for i in range(7)]
    )
    assert study.order == study_of().order != study_of(1).order
    for k, (source, i) in enumerate(study.order):
        assert (study.image(k) == (0 if source == "Real" else 100) + i).all()
    assert [s for s, _ in study.order] != sorted(s for s, _ in study.order)


def test_the_table_counts_for_each_source_what_was_taken_for_real():
    study = study_of()
    for k, (source, i) in enumerate(study.order):
        if (source, i) != ("Pix2Pix", 6):
            study.judge(k, source == "Real" or i < 2)
    real, made = study.table()
    assert (real["source"], real["judged"], real["taken for real"], real["share"]) == (
        "Real",
        5,
        5,
        1,
    )
    assert (made["judged"], made["taken for real"]) == (6, 2)
    known = wilson_interval(2, 6)
    assert made["95 % interval"] == f"{known.low:.2f} to {known.high:.2f}"
    assert study.order[study.position] == ("Pix2Pix", 6)


def test_a_second_answer_replaces_the_first_and_no_position_is_invented():
    study = study_of()
    study.judge(3, True)
    study.judge(3, False)
    assert study.answers == {3: False}
    for position in (-1, 12):
        with pytest.raises(IndexError, match=f"position: expected 0 to 11, got {position}"):
            study.judge(position, True)


def test_answers_are_saved_with_where_the_images_are_from(tmp_path):
    study = study_of()
    for k in (4, 0, 7):
        study.judge(k, k == 4)
    study.save(tmp_path / "study.csv")
    lines = list(csv.DictReader((tmp_path / "study.csv").read_text().splitlines()))
    assert [int(line["position"]) for line in lines] == [0, 4, 7]
    assert [line["judged"] for line in lines] == ["synthetic", "real", "synthetic"]
    for line in lines:
        assert (line["source"], int(line["image"])) == study.order[int(line["position"])]


def test_the_application_saves_every_answer_and_tells_the_table_at_the_end(tmp_path):
    study, path = study_of(), tmp_path / "study.csv"
    app = study.show(path)
    real, synthetic = app.children[3].children[:2]
    real.click()
    assert study.answers == {0: True} and len(path.read_text().splitlines()) == 2
    for _ in range(11):
        synthetic.click()
    assert len(path.read_text().splitlines()) == 13
    assert "taken for real" in app.children[4].value and "Pix2Pix" in app.children[4].value


def test_a_source_whose_images_were_not_judged_has_no_share():
    row = study_of().table()[0]
    assert row["judged"] == 0 and row["share"] != row["share"]


@pytest.mark.parametrize(
    "images",
    [
        {},
        {"Real": images_of(0, 0)},
        {"Real": images_of(2, 0), "Made": torch.zeros(2, 5, 4, dtype=torch.uint8)},
    ],
)
def test_nothing_to_judge_and_images_of_different_size_are_refused(images):
    with pytest.raises(ValueError, match="images: expected some, all of one size"):
        ReaderStudy(images)


IN_A_KERNEL = """
import torch
from cxrtut.evaluation.reader_study import ReaderStudy
from IPython.display import display

images = {name: torch.full((2, 8, 8), level, dtype=torch.uint8)
          for name, level in (("real", 10), ("made", 200))}
study = ReaderStudy(images, seed=1)
application = study.show("answers.csv")
display(application)
buttons = {child.description: child for box in application.children
           for child in getattr(box, "children", ()) if hasattr(child, "description")}
while study.position is not None:
    source, _ = study.order[study.position]
    buttons["real" if source == "real" else "synthetic"].click()
print([row["taken for real"] for row in study.table()])
"""


def test_in_a_real_kernel_a_script_presses_the_buttons_and_the_answers_are_saved(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(IN_A_KERNEL)])
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )  # fmt: skip
    client.execute()
    (cell,) = notebook.cells
    told = "".join(o["text"] for o in cell.outputs if o.output_type == "stream")
    assert told.strip() == "[2, 0]"
    views = [o for o in cell.outputs if o.output_type == "display_data"]
    assert any("application/vnd.jupyter.widget-view+json" in o["data"] for o in views)
    lines = (tmp_path / "answers.csv").read_text("utf-8").splitlines()
    assert lines[0] == "position,source,image,judged" and len(lines) == 5
    assert sorted(line.split(",")[1::2] for line in lines[1:]) == [
        ["made", "synthetic"], ["made", "synthetic"], ["real", "real"], ["real", "real"],
    ]  # fmt: skip
