"""The application is used as a reader uses it: by its buttons and its field."""

import pytest

from cxrtut.viz.two_choices import two_choices


class Study:
    """Three pictures; what was said of them."""

    def __init__(self, choices=("real", "synthetic")):
        self.said, self.shown = {}, []
        self.app = two_choices(
            3, self.picture, self.said.__setitem__, self.position, lambda: "<b>done</b>",
            choices=choices,
        )  # fmt: skip
        self.progress, self.where, self.image, row, self.end = self.app.children
        self.first, self.second, self.back, self.typed = row.children

    def picture(self, position):
        self.shown.append(position)
        return bytes([position])

    def position(self):
        return next((k for k in range(3) if k not in self.said), None)


def test_each_answer_brings_the_next_picture_and_the_last_one_the_end():
    study = Study()
    assert study.where.value == "image 1 of 3" and study.image.value == b"\x00"
    study.first.click()
    study.second.click()
    assert study.said == {0: True, 1: False} and study.progress.value == 2
    assert study.image.value == b"\x02" and study.end.value == ""
    study.first.click()
    assert study.said == {0: True, 1: False, 2: True} and study.shown == [0, 1, 2]
    assert study.end.value == "<b>done</b>" and study.where.value == "all 3 images are judged"
    assert study.image.layout.display == study.first.layout.display == "none"
    study.first.click()
    assert len(study.said) == 3


def test_letters_do_what_the_buttons_do():
    study = Study()
    for letter in ("r", "S", "x", "u", "r"):
        study.typed.value = letter
        assert study.typed.value == ""
    assert study.said == {0: True, 1: True} and study.where.value == "image 3 of 3"


def test_the_last_answers_can_be_undone_also_after_the_end_and_none_before_the_first():
    study = Study()
    assert study.back.disabled
    study.back.click()
    for _ in range(3):
        study.first.click()
    study.back.click()
    assert study.where.value == "image 3 of 3" and study.image.layout.display == ""
    study.back.click()
    assert study.where.value == "image 2 of 3"
    study.second.click()
    assert study.said == {0: True, 1: False, 2: True} and study.end.value == "<b>done</b>"


def test_a_study_that_was_begun_goes_on():
    study = Study()
    study.first.click()
    again = two_choices(
        3, study.picture, study.said.__setitem__, study.position, str, choices=("real", "made")
    )
    assert again.children[1].value == "image 2 of 3"


@pytest.mark.parametrize("choices", [("real", "rare"), ("real", "untrue")])
def test_choices_that_one_letter_cannot_tell_apart_are_refused(choices):
    with pytest.raises(ValueError, match="choices: expected first letters that differ"):
        Study(choices)
