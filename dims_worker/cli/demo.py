"""placeholder"""

import click


@click.command()
def demo() -> None:
    """Show it all."""
