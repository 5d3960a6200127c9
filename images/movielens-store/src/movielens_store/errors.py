"""What can go wrong, each with its exit code. Every message is one line without a secret in it."""

import click


class BadInput(click.ClickException):
    """An argument, a setting or the input file is wrong: the caller has to change it."""

    exit_code = 2


class StoreFailed(click.ClickException):
    """The database did not do its part: nothing was stored, and a later try may work."""

    exit_code = 1
