"""The errors of the command, each with its exit code. A message is one line and holds no secret."""

import click


class BadInput(click.ClickException):
    """An argument or a setting is wrong: the caller has to change it."""

    exit_code = 2


class FetchFailed(click.ClickException):
    """The ratings could not be fetched or written: there is no file, and a later try may work."""

    exit_code = 1
