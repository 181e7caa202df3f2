"""The one exception that means a user's mistake."""


class UserError(Exception):
    """A mistake of the user: its text is the one line that the command line prints (exit 2)."""
