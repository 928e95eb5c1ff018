"""The quiz of pictures: what its HTML says, and that nothing of it can break out."""

import numpy as np
import pytest
from viz.test_widgets import Tags

from cxrtut.viz.quiz import MARK, picture_quiz

PICTURES = [np.full((4, 6), value, np.uint8) for value in (0, 90, 200)]
WORDS = {"choices": ("real", "synthetic"), "caption": "Figure 9. A quiz.", "alt": "A film."}


def quiz(right=(True, False, False), told=("a patient", "by A", "by B"), **words):
    return picture_quiz(PICTURES, list(right), list(told), **{**WORDS, **words})


def test_each_picture_has_its_choices_and_knows_the_right_one():
    tags = Tags(quiz()._repr_html_())
    questions = tags.of("fieldset")
    assert [q["data-right"] for q in questions] == ["real", "synthetic", "synthetic"]
    assert [q["data-told"] for q in questions] == ["a patient", "by A", "by B"]
    buttons = tags.of("input")
    assert [b["value"] for b in buttons] == ["real", "synthetic"] * 3
    assert all(b["type"] == "radio" and b["onchange"] == MARK for b in buttons)
    names = [b["name"] for b in buttons]
    assert names[0::2] == names[1::2] and len(set(names)) == 3
    assert [image["alt"] for image in tags.of("img")] == [
        "A film, number 1", "A film, number 2", "A film, number 3",
    ]  # fmt: skip


def test_no_answer_is_shown_before_it_is_asked_for_but_all_can_be_read():
    html = quiz()._repr_html_()
    before, _, after = html.partition("<details>")
    assert 'class="answer" role="status" style="min-height: 3.2em"></div>' in before
    assert [after.index(told) for told in ("a patient", "by A", "by B")] == sorted(
        after.index(told) for told in ("a patient", "by A", "by B")
    )
    assert "Figure 9. A quiz." in after


def test_two_quizzes_do_not_share_their_buttons():
    other = picture_quiz(PICTURES[:1], [True], ["a patient"], **WORDS)
    again = quiz(choices=("patient", "drawn"))
    names = [{b["name"] for b in Tags(q._repr_html_()).of("input")} for q in (quiz(), other, again)]
    assert not names[0] & names[1] and not names[0] & names[2]


def test_pictures_of_several_sizes_are_refused():
    with pytest.raises(ValueError, match=r"pictures of one size, got \[\(4, 6\), \(9, 9\)\]"):
        picture_quiz([PICTURES[0], np.zeros((9, 9), np.uint8)], [True, True], ["a", "b"], **WORDS)


def test_the_right_choice_is_called_right():
    assert "right(question) ? 'Yes: ' : 'No: '" in MARK


def test_words_cannot_end_their_attribute():
    bad = '"><b>&'
    html = quiz(told=(bad, bad, bad), caption=bad, alt=bad, choices=(bad, "b"))._repr_html_()
    assert "<b>" not in html
    assert {q["data-told"] for q in Tags(html).of("fieldset")} == {bad}


def test_in_a_terminal_it_is_a_line():
    assert repr(quiz()) == "Figure 9. A quiz. [quiz: 3 pictures, real or synthetic?]"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"right": (True,)}, "got 3 pictures, 1 answers and 3 texts"),
        ({"told": ("a",)}, "got 3 pictures, 3 answers and 1 texts"),
        ({"choices": ("a", "a")}, "choices: expected two that differ"),
        ({"caption": " "}, "expected a text for caption, got an empty one"),
        ({"alt": ""}, "expected a text for alt, got an empty one"),
    ],
)
def test_what_makes_no_quiz_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        quiz(**change)


def test_no_pictures_make_no_quiz():
    with pytest.raises(ValueError, match="got 0 pictures"):
        picture_quiz([], [], [], **WORDS)
