"""What the executed notebook of a page prints, which is compared, and how far it came."""

from pathlib import Path

CHECKED = "nbval-check-output"


def printed(path: Path) -> list[dict[str, str]]:
    """The text that the tagged cells of an executed notebook print, in order."""
    import nbformat

    cells = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and CHECKED in cell.metadata.get("tags", []):
            shown = (output for output in cell.outputs if output.get("name") != "stderr")
            # A stream may arrive in pieces; a displayed value ends its line.
            pieces = (
                o.get("text") or o.get("data", {}).get("text/plain", "") + "\n" for o in shown
            )
            lines = [line.rstrip() for line in "".join(pieces).strip("\n").splitlines()]
            cells.append({"cell": cell.source.splitlines()[-1], "prints": "\n".join(lines)})
    return cells


def last_cell_begun(path: Path) -> str | None:
    """Source of the code cell that was run last, in the notebook that papermill writes meanwhile;
    None if none was.
    """
    import nbformat

    if not path.is_file():
        return None
    cells = nbformat.read(path, as_version=4).cells
    begun = [
        cell.source
        for cell in cells
        if cell.cell_type == "code" and cell.metadata.get("papermill", {}).get("start_time")
    ]
    return begun[-1] if begun else None
