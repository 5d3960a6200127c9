"""The entry point of `store-rankings`: first the signal handling, then the imports that take time."""

import os
import signal
import sys
import threading

SIGNALS = {signal.SIGTERM, signal.SIGINT}


def exit_at_once_on_signals() -> None:
    """End the process with 128 + the signal's number (143 for SIGTERM, 130 for SIGINT).

    In a container this is process 1, which has no default action for signals. A thread waits for them, because a
    Python handler would only run once a driver has stopped waiting for a lock. Exiting at any moment is safe: a
    transaction without its commit leaves nothing.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def wait_and_exit() -> None:
        number = signal.sigwait(SIGNALS)
        os.write(2, f"Stopped by {signal.Signals(number).name}\n".encode())
        os._exit(128 + number)

    threading.Thread(target=wait_and_exit, daemon=True).start()


def main() -> None:
    """Run the command; an error is one line on stderr and its exit code."""
    exit_at_once_on_signals()

    import click

    from movielens_store.command import command

    try:
        sys.exit(command.main(standalone_mode=False))
    except click.ClickException as error:  # click's own output would print the usage around it
        click.echo(f"Error: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # stdout is closed or its disk is full
        click.echo(f"Error: cannot write to stdout: {error.strerror}", err=True)
        os._exit(1)  # sys.exit would try to write it again


if __name__ == "__main__":
    main()
