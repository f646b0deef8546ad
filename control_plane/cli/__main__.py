"""``python -m control_plane.cli``: the same as the ``slipway`` script."""

from control_plane.cli import main

main()
