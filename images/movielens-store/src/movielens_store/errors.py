"""The errors of the command, each with its exit code. A message is one line and holds no secret."""

import click


class BadInput(click.ClickException):
    """An argument, a setting or the input file is wrong: the caller has to change it."""

    exit_code = 2


class StoreFailed(click.ClickException):
    """The database failed: nothing was stored, and a later try may work."""

    exit_code = 1
