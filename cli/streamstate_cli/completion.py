"""``streamstate completion``: the script that teaches a shell this command's words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from streamstate.errors import ConfigError

__all__ = ["completion"]

VARIABLE = "_STREAMSTATE_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and files in a shell.

    \b
    Examples:
      eval "$(streamstate completion bash)"          # in ~/.bashrc
      eval "$(streamstate completion zsh)"           # in ~/.zshrc
      streamstate completion fish | source           # in ~/.config/fish/config.fish

    \b
    The same without this command:
      eval "$(_STREAMSTATE_COMPLETE=bash_source streamstate)"
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    try:
        click.echo(kind(ctx.find_root().command, {}, "streamstate", VARIABLE).source())
    except RuntimeError as error:
        raise ConfigError(f"no completion for {shell}: {error}") from None
