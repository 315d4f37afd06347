"""The `ex4d` command: finds the subcommand, loads only that, and turns every error into one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

#: name -> (where the typed function or the nested table lives, one line of help). A module target holds its own COMMANDS.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("ex4d.cli.run:run", "the whole line: depth, mesh, render, generate"),
    "depth": ("ex4d.cli.depth:depth", "depth of every frame"),
    "mesh": ("ex4d.cli.mesh:mesh", "Depth Watertight Meshes of a video and its depth"),
    "render": ("ex4d.cli.render:render", "colour and mask along a new camera path"),
    "generate": ("ex4d.cli.generate:generate", "complete a render folder"),
    "cameras": ("ex4d.cli.cameras", "convert, lint, preview and suggest camera paths"),
    "models": ("ex4d.cli.models", "list, download, verify and convert weights"),
    "train": ("ex4d.cli.train", "prepare data and train the adapter"),
    "evaluate": ("ex4d.cli.evaluate:evaluate", "score folders of outputs by the field's protocols"),
    "doctor": ("ex4d.cli.doctor:doctor", "what this machine has, what is missing, what to type"),
}


def entry() -> None:
    """Console script."""
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 2 bad input, 130 stopped by the user)."""
    from ex4d.errors import Ex4dError

    args = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(args, COMMANDS, "ex4d")
    except Ex4dError as error:
        print(f"ex4d: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ex4d: stopped; finished stages are kept, the same command goes on from them", file=sys.stderr)
        return 130
    except MemoryError:
        print("ex4d: out of memory; try: --size with smaller sides, or --frames with fewer frames", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1


def _dispatch(args: list[str], table: dict[str, tuple[str, str]], prog: str) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(_help(table, prog))
        return 0
    if args[0] == "--version" and prog == "ex4d":
        from ex4d import __version__

        print(__version__)
        return 0
    if args[0] not in table:
        print(f"{prog}: got {args[0]!r}; need one of {', '.join(table)}; try: {prog} --help", file=sys.stderr)
        return 2
    target, _ = table[args[0]]
    module_name, _, function = target.partition(":")
    module = import_module(module_name)
    if not function:
        return _dispatch(args[1:], module.COMMANDS, f"{prog} {args[0]}")
    return _call(getattr(module, function), args[1:], f"{prog} {args[0]}")


def _call(function: Callable[..., Any], args: list[str], prog: str) -> int:
    import tyro

    from ex4d.cli.shared import size_rule

    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(size_rule)
    try:
        result = tyro.cli(function, prog=prog, args=args, registry=registry)
    except SystemExit as stop:  # tyro has already printed its own message: 0 after --help, 2 after a wrong option
        return stop.code if isinstance(stop.code, int) else 2
    return result if isinstance(result, int) else 0


def _help(table: dict[str, tuple[str, str]], prog: str) -> str:
    width = max(map(len, table))
    lines = [f"usage: {prog} COMMAND [options]", "", "commands:"]
    lines += [f"  {name:<{width}}  {line}" for name, (_, line) in table.items()]
    return "\n".join([*lines, "", f"{prog} COMMAND --help shows its options."])
