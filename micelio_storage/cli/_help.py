"""How the command's help looks: like that of other Unix commands, in whichever release of typer draws it.

Typer's own has `[[URL]]` and `<list[str]>` in some releases, and cuts the sentences in its list of commands.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

WIDTH = 100  # columns, where the terminal has as many; 80 cut most of our lines in two
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": WIDTH}


class Command(TyperCommand):
    """One of the commands. (Contexts and formatters are click's in old releases of typer, its own in new ones.)"""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What stands behind the command's name in the first line."""
        return ["[OPTIONS]", *(_usage(one) for one in self.get_params(ctx) if one.param_type_name == "argument")]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The arguments, then the options."""
        _write_parameters(self.get_params(ctx), ctx, formatter)


class Group(TyperGroup):
    """The command itself, which has the others."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The options, then the commands."""
        _write_parameters(self.get_params(ctx), ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Each command with all of the first paragraph of its help."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, " ".join((command.help or "").partition("\n\n")[0].split())))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _usage(argument: Any) -> str:
    text = str(argument.metavar) if argument.required else f"[{argument.metavar}]"
    return f"{text}..." if argument.nargs == -1 else text


def _write_parameters(parameters: Any, ctx: Any, formatter: Any) -> None:
    arguments = [(one.metavar, one.help) for one in parameters if one.param_type_name == "argument"]
    records = [one.get_help_record(ctx) for one in parameters if one.param_type_name == "option"]
    # Old releases escape a bracket for rich, also where rich does not draw.
    options = [(record[0], record[1].replace("\\[", "[")) for record in records if record is not None]
    for title, rows in (("Arguments", arguments), ("Options", options)):
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)
