"""What may go wrong while shipping, in words for the person who ships."""

from __future__ import annotations


class DeployError(Exception):
    """It can't go on; the message says what to do about it."""
