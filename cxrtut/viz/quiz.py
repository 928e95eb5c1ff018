"""A quiz of pictures that needs no kernel: it marks the answers by its own HTML."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from cxrtut.viz.widgets import Picture, smallest_file

# Of the radio buttons. It acts on its own figure alone and looks nothing up by name.
MARK = (
    "const question = this.closest('fieldset'), figure = this.closest('figure');"
    " question.dataset.said = this.value;"
    " const right = q => q.dataset.said === q.dataset.right;"
    " question.querySelector('.answer').textContent ="
    " (right(question) ? 'Yes: ' : 'No: ') + question.dataset.told;"
    " const said = [...figure.querySelectorAll('fieldset')].filter(q => q.dataset.said);"
    " figure.querySelector('.state').textContent ="
    " said.filter(right).length + ' of ' + said.length + ' right'"
)


@dataclass(frozen=True, repr=False)
class PictureQuiz:
    """Pictures with the same two choices each. A notebook displays it as HTML, a terminal as text.

    Attributes:
        pictures: grey or RGB, all of one size.
        right: for each picture whether the first choice is right.
        told: what is said of each picture after an answer, such as "made by Pix2Pix".
        choices: what can be chosen, such as "real" and "synthetic".
        caption: the figure's caption.
        alt: what can be seen in every picture; its number is added.
    """

    pictures: Sequence[Picture]
    right: Sequence[bool]
    told: Sequence[str]
    choices: tuple[str, str]
    caption: str
    alt: str

    def __repr__(self) -> str:
        return f"{self.caption} [quiz: {len(self.pictures)} pictures, {' or '.join(self.choices)}?]"

    def _repr_html_(self) -> str:
        files = [smallest_file(picture) for picture in self.pictures]
        # Two quizzes of a page must not share the names of their buttons
        words = repr((self.right, self.told, self.choices, self.caption)).encode()
        name = hashlib.sha256(words + b"".join(data for _, data in files)).hexdigest()[:8]
        questions = "".join(self._question(i, *file, name) for i, file in enumerate(files))
        answers = "".join(f"<li>{escape(told)}</li>" for told in self.told)
        return (
            '<figure class="picture-quiz" style="margin: 1em 0">'
            '<div style="display: grid; gap: 1em;'
            ' grid-template-columns: repeat(auto-fill, minmax(min(150px, 45%), 1fr))">'
            f'{questions}</div><div class="state" role="status" style="min-height: 1.6em"></div>'
            f"<details><summary>all answers</summary><ol>{answers}</ol></details>"
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )

    def _question(self, index: int, form: str, data: bytes, name: str) -> str:
        height, width = self.pictures[index].shape[:2]
        right = self.choices[0 if self.right[index] else 1]
        address = f"data:image/{form};base64,{base64.b64encode(data).decode()}"
        buttons = "".join(
            '<label style="display: block; padding: 0.3em 0"><input type="radio"'
            f' name="quiz-{name}-{index}" value="{escape(choice)}" autocomplete="off"'
            f' onchange="{escape(MARK)}"> {escape(choice)}</label>'
            for choice in self.choices
        )
        return (
            f'<fieldset data-right="{escape(right)}" data-told="{escape(self.told[index])}"'
            ' style="border: 0; margin: 0; padding: 0; min-width: 0">'
            f"<legend>{index + 1}</legend>"
            f'<img src="{address}" alt="{escape(self.alt.rstrip(". "))}, number {index + 1}"'
            f' width="{width}" height="{height}" loading="lazy" style="width: 100%; height: auto">'
            f'{buttons}<div class="answer" role="status" style="min-height: 3.2em"></div>'
            "</fieldset>"
        )


def picture_quiz(
    pictures: Sequence[Picture],
    right: Sequence[bool],
    told: Sequence[str],
    *,
    choices: tuple[str, str],
    caption: str,
    alt: str,
) -> PictureQuiz:
    """A quiz of pictures of one size, each with the same two choices.

    Args:
        pictures: grey (H x W) or RGB (H x W x 3).
        right: for each whether the first choice is right.
        told: what is said of each after an answer.
        choices: two words that differ.
        caption: the figure's caption, which begins with its number: `Figure 3. ...`.
        alt: the alternative text of every picture; its number is added.

    Raises:
        ValueError: no pictures, or of several sizes, not one answer and one text for each, or
            choices that are the same.
    """
    if not pictures or not len(pictures) == len(right) == len(told):
        raise ValueError(
            "expected pictures, and an answer and a text for each, got "
            f"{len(pictures)} pictures, {len(right)} answers and {len(told)} texts"
        )
    if len(shapes := {picture.shape[:2] for picture in pictures}) > 1:
        raise ValueError(f"expected pictures of one size, got {sorted(shapes)}")
    if choices[0] == choices[1]:
        raise ValueError(f"choices: expected two that differ, got {choices}")
    for name, text in {"caption": caption, "alt": alt}.items():
        if not text.strip():
            raise ValueError(f"expected a text for {name}, got an empty one")
    return PictureQuiz(pictures, right, told, choices, caption, alt)
