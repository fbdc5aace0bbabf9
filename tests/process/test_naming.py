"""Names of users and views, as logs and reports have them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest
from django.test import RequestFactory
from django.urls import ResolverMatch
from django.utils.functional import SimpleLazyObject

from dwebsocket import WebSocketView
from dwebsocket.process.naming import dotted_name, user_key_of, user_name, view_name
from tests.process.helpers import echo

# Names of users


class Named:
    """A user of a project that has no `get_username()`."""

    is_authenticated = True

    def __str__(self) -> str:
        return "grace"


@pytest.mark.parametrize(
    ("user", "name"),
    [(User(username="ada"), "ada"), (Named(), "grace"), (AnonymousUser(), ""), (None, ""), ("ada", "")],
    ids=["user", "other", "anonymous", "none", "text"],
)
def test_user_is_named_by_whatever_name_there_is(user: Any, name: str) -> None:
    request = RequestFactory().get("/")
    assert user_name(request) == ""
    request.user = user
    assert user_name(request) == name


# Names of views


class Chat(WebSocketView):
    """What a project makes of it."""


def test_view_is_named_by_its_class_where_it_has_one() -> None:
    assert dotted_name(echo) == "tests.process.helpers.echo"
    assert dotted_name(Chat.as_view()) == f"{__name__}.Chat"
    assert dotted_name(Chat()) == f"{__name__}.Chat"


def test_views_that_wait_share_one_name() -> None:
    request = HttpRequest()
    request.resolver_match = ResolverMatch(len, (), {})
    assert view_name(request) is view_name(request)


# Keys of users


def request_with(**attributes: Any) -> HttpRequest:
    request = HttpRequest()
    vars(request).update(attributes)
    return request


def never() -> Any:
    raise AssertionError("no view has asked for the user, and it is loaded")


def evaluated(user: Any) -> SimpleLazyObject:
    lazy = SimpleLazyObject(lambda: user)
    str(lazy)
    return lazy


@pytest.mark.parametrize(
    ("attributes", "key"),
    [
        ({"user": User(pk=7)}, "7"),
        ({"user": AnonymousUser()}, None),
        ({"user": evaluated(User(pk=7))}, "7"),
        ({"user": evaluated(AnonymousUser())}, None),
        ({}, None),
        ({"user": SimpleLazyObject(never)}, None),
        ({"user": SimpleLazyObject(never), "session": {SESSION_KEY: "7"}}, "7"),
        ({"user": SimpleLazyObject(never), "session": {}}, None),
        ({"user": User(pk=8), "session": {SESSION_KEY: "7"}}, "8"),
        ({"user": SimpleNamespace(pk="a-b")}, "a-b"),
        ({"user": object()}, None),
    ],
    ids=range(11),
)  # fmt: skip
def test_user_is_known_without_being_loaded(attributes: dict[str, Any], key: str | None) -> None:
    assert user_key_of(request_with(**attributes)) == key


def test_request_of_the_rest_framework_has_the_user_of_the_one_inside() -> None:
    outer = SimpleNamespace(_request=request_with(user=User(pk=7)))
    assert user_key_of(outer) == "7"  # type: ignore[arg-type]
