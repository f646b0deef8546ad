"""Fixtures of the accounts API."""

from tests.support.accounts import add_user, admin, app, browser, context

__all__ = ["add_user", "admin", "app", "browser", "context"]
