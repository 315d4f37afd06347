"""What several commands share: progress bars, sizes, the note lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ex4d.errors import Ex4dError, InputError
from ex4d.types import Progress

if TYPE_CHECKING:
    from tyro.constructors import PrimitiveConstructorSpec, PrimitiveTypeInfo


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """One bar per step with the time left; silent where nobody looks (no terminal), so that logs stay short."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, object] = {}

        def tell(done: int, total: int | None, what: str) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]

        yield tell


def parse_size(text: str | None) -> tuple[int, int] | None:
    """`1280x720` (width x height, as people write it) to (height, width)."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"size {text}", "WIDTHxHEIGHT in pixels above 0", "--size 1280x720")
    return int(parts[1]), int(parts[0])


def size_rule(type_info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[tuple[int, int]] | None:
    """tyro's rule for options of type `tuple[int, int]`: sizes (height, width), which people type as WIDTHxHEIGHT."""
    from tyro.constructors import PrimitiveConstructorSpec

    if type_info.type != tuple[int, int]:
        return None

    def read(words: list[str]) -> tuple[int, int]:
        try:
            (size,) = map(parse_size, words)
        except InputError as error:  # a ValueError would be told in tyro's words
            raise Ex4dError(error.got, error.need, error.fix) from error
        assert size is not None
        return size

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="WIDTHxHEIGHT",
        instance_from_str=read,
        is_instance=lambda value: (
            isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int) for v in value)
        ),
        str_from_instance=lambda size: [f"{size[1]}x{size[0]}"],
    )


def say(lines: Iterable[str]) -> None:
    """Notes, one a line, on stderr."""
    for line in lines:
        print(f"note: {line}", file=sys.stderr)
