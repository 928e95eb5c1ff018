"""Pictures one by one, and two buttons: an application for Jupyter and Colab."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipywidgets import VBox

WIDTH = "384px"


def two_choices(
    n: int,
    picture: Callable[[int], bytes],
    choose: Callable[[int, bool], None],
    position: Callable[[], int | None],
    told: Callable[[], str],
    *,
    choices: tuple[str, str],
) -> VBox:
    """An application that shows one picture after the other, each with two buttons, and at the end
    what is told of the answers.

    The buttons are reached by the tabulator. The first letter of a choice does the same when it is
    typed into the field beside them, and there "u" undoes the last answer.

    Args:
        n: how many pictures.
        picture: the bytes of a PNG file for a position, 0 to n - 1.
        choose: is given a position, and whether it was the first choice.
        position: the one to be shown; None when all have been answered.
        told: HTML that is shown at the end.
        choices: what the buttons say.

    Raises:
        ValueError: two choices with one first letter, or one that begins with "u".
    """
    import ipywidgets as widgets

    first, second = (name[0].lower() for name in choices)
    if len({first, second, "u"}) < 3:
        raise ValueError(f"choices: expected first letters that differ, and no u, got {choices}")
    image = widgets.Image(format="png", layout=widgets.Layout(width=WIDTH))
    image.add_class("radiograph")
    buttons = [widgets.Button(description=name, tooltip=f"or type {name[0]}") for name in choices]
    back = widgets.Button(description="undo", tooltip="or type u")
    typed = widgets.Text(
        placeholder=f"{first}, {second} or u", continuous_update=True,
        layout=widgets.Layout(width="8em"),
    )  # fmt: skip
    progress = widgets.IntProgress(max=n, layout=widgets.Layout(width=WIDTH))
    where, end = widgets.Label(), widgets.HTML()
    answered: list[int] = []
    at = position()

    def show() -> None:
        for part in (image, *buttons, typed):
            part.layout.display = "none" if at is None else ""
        back.disabled = not answered
        progress.value = n if at is None else at
        if at is None:
            where.value, end.value = f"all {n} images are judged", told()
        else:
            where.value, end.value, image.value = f"image {at + 1} of {n}", "", picture(at)

    def answer(is_first: bool) -> None:
        nonlocal at
        if at is not None:
            choose(at, is_first)
            answered.append(at)
            at = position()
            show()

    def undo() -> None:
        nonlocal at
        if answered:
            at = answered.pop()
            show()

    buttons[0].on_click(lambda button: answer(True))
    buttons[1].on_click(lambda button: answer(False))
    back.on_click(lambda button: undo())

    def key(change: dict[str, Any]) -> None:
        letter = str(change["new"]).strip().lower()[-1:]
        if not letter:
            return
        typed.value = ""
        if letter == "u":
            undo()
        elif letter in (first, second):
            answer(letter == first)

    typed.observe(key, "value")
    show()
    return widgets.VBox([progress, where, image, widgets.HBox([*buttons, back, typed]), end])
