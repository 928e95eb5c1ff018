"""A network as a table: what its layers are, what each puts out, and how many parameters it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cxrtut.evaluation_mode import evaluating
from cxrtut.viz.tables import Cell, Table

ROWS = 20  # a longer table is made shorter by showing groups of layers
_CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
# What changes numbers and no shape: it is shown in the row of the layer before it.
_BESIDE = (
    nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.Dropout, nn.Dropout2d,
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Tanh, nn.Sigmoid,
)  # fmt: skip


@dataclass
class _Layer:
    """A module that ran, or several that are shown in one row.

    Attributes:
        name: of the first, inside the network.
        modules: of the row, in the order in which they ran.
        shapes: what the last of them put out, once for each time that it ran.
    """

    name: str
    modules: list[nn.Module]
    shapes: list[str] = field(default_factory=list)


def layer_table(
    network: nn.Module, *input_shapes: Sequence[int], caption: str, depth: int | None = None
) -> Table:
    """The layers of a network in the order in which they run, found by running it once on zeros.

    A row says what the layer is, such as "Conv2d 1 → 32, 3 x 3, stride 2"; norms and activations
    stand in the row of the layer before them. A network of many layers is shown by its groups; of a
    block that is shown as one, norms and activations are left out. The last row is the whole
    network. Only modules are seen: what the `forward` of a module does by
    functions, such as resizing, a mean over places, or adding a shortcut, has no row, and may be
    why one row does not fit the next.

    The network is run in evaluation mode without gradients. Its mode, its weights and the
    statistics of its batch norms stay as they are.

    Args:
        network: any module.
        *input_shapes: of each input of one example, without the axis of the batch: (1, 64, 64).
        caption: of the table.
        depth: how far groups are opened: 1 shows the parts of the network, 2 their parts, and so
            on. By default as far as 20 rows suffice.

    Returns:
        A table with the columns layer, what it is, output (without the axis of the batch) and
        parameters. Layers that were not called, and parameters of no layer, have rows of their own,
        so that the numbers add up to the last.

    Raises:
        ValueError: no shape of an input, or a depth below 1.
    """
    if not input_shapes:
        raise ValueError("expected the shape of each input, such as (1, 64, 64), got none")
    if depth is not None and depth < 1:
        raise ValueError(f"expected a depth of 1 or more, got {depth}")
    ran, output = _run(network, input_shapes)
    layers = _layers(network, ran, depth)
    rows: list[dict[str, Cell]] = []
    counted: set[int] = set()
    for layer in layers:
        rows.append(
            {
                "layer": layer.name, "what it is": _what(layer, ran),
                "output": _distinct(layer.shapes), "parameters": _count(layer.modules, counted),
            }
        )  # fmt: skip
    for name, module in network.named_modules():
        own = dict.fromkeys(p for p in module.parameters(recurse=False) if id(p) not in counted)
        if own:
            what = (
                "parameters of its own"
                if list(module.children())
                else f"{_leaf(module)}, not called"
            )
            counted |= {id(p) for p in own}
            rows.append(
                {
                    "layer": name or _class(network), "what it is": what,
                    "output": "–", "parameters": sum(p.numel() for p in own),
                }
            )  # fmt: skip
    rows.append(
        {
            "layer": "total", "what it is": _class(network), "output": output,
            "parameters": _count([network], set()),
        }
    )  # fmt: skip
    return Table(rows, caption=caption)


def _run(
    network: nn.Module, input_shapes: Sequence[Sequence[int]]
) -> tuple[dict[nn.Module, list[str]], str]:
    """What each module put out each time that it ran, in the order in which they began to run, and
    what the network put out.
    """
    found: dict[nn.Module, list[str]] = {}
    handles: list[RemovableHandle] = []

    def begins(module: nn.Module, _: object) -> None:
        found.setdefault(module, [])

    def ends(module: nn.Module, _: object, output: object) -> None:
        found[module].append(_shape(output))

    like = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    inputs = [
        torch.zeros(1, *shape, dtype=like.dtype, device=like.device) for shape in input_shapes
    ]
    try:
        for module in network.modules():
            handles.append(module.register_forward_pre_hook(begins))
            handles.append(module.register_forward_hook(ends))
        with evaluating(network), torch.no_grad():
            output = network(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found, _shape(output)


def _layers(network: nn.Module, ran: dict[nn.Module, list[str]], depth: int | None) -> list[_Layer]:
    """The rows at a depth; by default at the greatest that needs no more than `ROWS`."""
    if depth is not None:
        return _folded(_opened(network, ran, depth), ran)
    layers, deeper = _folded(_opened(network, ran, 1), ran), 2
    while True:
        opened = _folded(_opened(network, ran, deeper), ran)
        if len(opened) > ROWS or [x.name for x in opened] == [x.name for x in layers]:
            return layers
        layers, deeper = opened, deeper + 1


def _opened(
    network: nn.Module, ran: dict[nn.Module, list[str]], depth: int
) -> list[tuple[str, nn.Module]]:
    """The modules to show with their names, in the order in which they ran: those that ran at a
    depth, and leaves above it. A list of modules does not run, and adds no depth.
    """
    found: list[tuple[str, nn.Module]] = []

    def open_(name: str, module: nn.Module, left: int) -> None:
        inner = list(_children(module, ran))
        if (left == 0 or not inner) and module in ran:
            found.append((name, module))
            return
        for key, child in inner:
            open_(f"{name}.{key}" if name else key, child, left - 1)

    open_("", network, depth)
    order = {module: k for k, module in enumerate(ran)}
    unique = {id(module): (name or _class(module), module) for name, module in reversed(found)}
    return sorted(unique.values(), key=lambda pair: order[pair[1]])


def _children(
    module: nn.Module, ran: dict[nn.Module, list[str]]
) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a module that ran, those of a list of modules as its own."""
    for name, child in module.named_children():
        if child in ran:
            yield name, child
        else:
            yield from ((f"{name}.{key}", inner) for key, inner in _children(child, ran))


def _folded(
    shown: Iterable[tuple[str, nn.Module]], ran: dict[nn.Module, list[str]]
) -> list[_Layer]:
    """Rows: a module that changes no shape goes into the row before it."""
    layers: list[_Layer] = []
    for name, module in shown:
        shapes = ran[module]
        beside = isinstance(module, _BESIDE) and layers and layers[-1].shapes == shapes
        if beside and not list(layers[-1].modules[0].children()):
            layers[-1].modules.append(module)
        else:
            layers.append(_Layer(name, [module], shapes))
    return layers


def _what(layer: _Layer, ran: dict[nn.Module, list[str]]) -> str:
    first, *others = layer.modules
    what = _group(first, ran) or "; ".join([_leaf(first), *map(_leaf, others)])
    times = len(layer.shapes)
    return what if times == 1 else f"{what} (runs {times} times)"


def _group(module: nn.Module, ran: dict[nn.Module, list[str]]) -> str:
    """What is inside a module, in the order in which it ran; "" of a leaf."""
    parts = sorted(_children(module, ran), key=lambda part: list(ran).index(part[1]))
    plain = isinstance(module, nn.Sequential)
    words = []
    for name, part in parts:
        if isinstance(part, nn.Sequential):
            words.append(f"{name} ({_group(part, ran)})")
        elif isinstance(part, _CONVOLUTIONS):
            words.append(f"{_class(part)} {_size(part.kernel_size)}")
        elif plain or not isinstance(part, _BESIDE):
            words.append(_class(part))
    inside = _repeated(words)
    return inside if plain or not parts else f"{_class(module)}: {inside}"


def _leaf(module: nn.Module) -> str:
    """A layer with its numbers."""
    name = _class(module)
    if isinstance(module, _CONVOLUTIONS):
        about = [f"{name} {module.in_channels} → {module.out_channels}", _size(module.kernel_size)]
        if set(module.stride) != {1}:
            about.append(f"stride {_size(module.stride, same=True)}")
        if set(module.dilation) != {1}:
            about.append(f"dilation {_size(module.dilation, same=True)}")
        if module.groups != 1:
            about.append(f"{module.groups} groups")
        return ", ".join(about)
    if isinstance(module, nn.Linear):
        return f"{name} {module.in_features} → {module.out_features}"
    if isinstance(module, nn.LeakyReLU):
        return f"{name} {module.negative_slope:g}"
    if isinstance(module, nn.Dropout | nn.Dropout2d):
        return f"{name} {module.p:g}"
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        return f"{name} {_size(module.kernel_size)}, stride {_size(module.stride, same=True)}"
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return f"{name} to {_size(module.output_size)}"
    if isinstance(module, nn.PixelShuffle):
        return f"{name} {module.upscale_factor}"
    if isinstance(module, nn.PixelUnshuffle):
        return f"{name} {module.downscale_factor}"
    return name


def _class(module: nn.Module) -> str:
    """The name of its class; of a convolution that is computed in another way, torch's."""
    kinds = [kind.__name__ for kind in type(module).__mro__ if kind in _CONVOLUTIONS]
    return (kinds or [type(module).__name__])[0].lstrip("_")


def _size(numbers: object, *, same: bool = False) -> str:
    """ "3 x 3"; of equal numbers one, if `same`."""
    each = list(numbers) if isinstance(numbers, tuple | list) else [numbers] * (1 if same else 2)
    return str(each[0]) if same and len(set(each)) == 1 else " x ".join(map(str, each))


def _repeated(words: Sequence[str]) -> str:
    """Words one after another; what comes several times in a row is written once."""
    said, k = [], 0
    while k < len(words):
        best, times = 1, 1
        for length in range(1, len(words) // 2 + 1):
            block, n = words[k : k + length], 1
            while words[k + n * length : k + (n + 1) * length] == block:
                n += 1
            if n > 1 and n * length > best * times:
                best, times = length, n
        block = words[k : k + best]
        what = ", ".join(block) if best == 1 else f"({', '.join(block)})"
        said.append(f"{times} x {what}" if times > 1 else block[0])
        k += best * times
    return ", ".join(said)


def _shape(output: object) -> str:
    """Of each tensor of an output its shape without the axis of the batch."""
    if isinstance(output, Tensor):
        return " x ".join(map(str, output.shape[1:])) if output.ndim > 1 else "one number"
    if isinstance(output, dict):
        return _shape(tuple(output.values()))
    if isinstance(output, tuple | list):
        return "; ".join(_shape(part) for part in output)
    return "–"


def _distinct(shapes: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(shapes))


def _count(modules: Iterable[nn.Module], counted: set[int]) -> int:
    """Parameters of modules that were not counted before."""
    new = {id(p): p for module in modules for p in module.parameters() if id(p) not in counted}
    counted |= set(new)
    return sum(p.numel() for p in new.values())
