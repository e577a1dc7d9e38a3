"""Who may change what is served."""

from __future__ import annotations

import ast
import hmac
import inspect

import pytest

from recsys.exceptions import InvalidInputError
from recsys.serving import security
from recsys.serving.security import check_address, why_refused

KEY = b"s3cret"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_this_machine_alone_needs_no_key(host: str) -> None:
    check_address(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.7", "2001:db8::1"])
def test_others_need_one(host: str) -> None:
    with pytest.raises(InvalidInputError, match="others can reach, and there is no API key"):
        check_address(host, None)
    check_address(host, "s3cret")


def test_a_host_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="cannot be found"):
        check_address("no.such.host.invalid", None)
    with pytest.raises(InvalidInputError, match="cannot be found"):
        check_address("x" * 300, None)


@pytest.mark.parametrize("path", ["/recommend", "/similar", "/reach", "/explain"])
def test_what_only_reads_may_come_from_anybody(path: str) -> None:
    assert why_refused("POST", path, {}, KEY) is None
    assert why_refused("GET", "/metrics", {}, KEY) is None
    # But nothing else by these names.
    assert why_refused("DELETE", path, {}, KEY) is not None
    assert why_refused("POST", path + "/", {}, KEY) is not None


@pytest.mark.parametrize(("method", "path"), [("PUT", "/items/1"), ("DELETE", "/items"), ("POST", "/bundle")])
def test_changes_need_the_key(method: str, path: str) -> None:
    for headers in (
        {b"x-api-key": KEY},
        {b"authorization": b"Bearer " + KEY},
        {b"authorization": b"bearer  " + KEY},
        {b"x-api-key": b"wrong", b"authorization": b"Bearer " + KEY},
    ):
        assert why_refused(method, path, headers, KEY) is None
    for headers in (
        {},
        {b"x-api-key": b""},
        {b"x-api-key": KEY[:-1]},
        {b"x-api-key": KEY + b"x"},
        {b"x-api-key": b"\xff"},
        {b"authorization": KEY},
        {b"authorization": b"Basic " + KEY},
        {b"authorization": b"Bearer"},
    ):
        refused = why_refused(method, path, headers, KEY)
        assert refused is not None
        assert refused[0] == 401


def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(given: bytes, key: bytes) -> bool:
        compared.append((given, key))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert why_refused("PUT", "/items", {b"x-api-key": KEY, b"authorization": b"Bearer x"}, KEY) is not None
    assert compared == [(KEY, KEY), (b"x", KEY)]
    # And in no other way.
    tree = ast.parse(inspect.getsource(security.why_refused))
    names = [
        {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
    ]
    assert [found for found in names if "api_key" in found] == [{"api_key"}]


@pytest.mark.parametrize("host", [b"localhost", b"localhost:8000", b"127.0.0.1:8000", b"[::1]:8000"])
def test_without_a_key_a_browser_changes_nothing_for_another_site(host: bytes) -> None:
    assert why_refused("PUT", "/items", {b"host": host}, None) is None
    assert why_refused("PUT", "/items", {b"host": host, b"origin": b"http://" + host}, None) is None
    for origin in (b"http://evil.example", b"null", b"http://localhost:9999", b"http://" + host + b".evil.example"):
        refused = why_refused("PUT", "/items", {b"host": host, b"origin": origin}, None)
        assert refused is not None
        assert refused[0] == 403


@pytest.mark.parametrize("host", [b"", b"evil.example", b"evil.example:8000", b"localhost.evil.example", b"[", b"\xff"])
def test_without_a_key_a_name_that_was_pointed_here_changes_nothing(host: bytes) -> None:
    refused = why_refused("PUT", "/items", {b"host": host}, None)
    assert refused is not None
    assert refused[0] == 403


@pytest.mark.parametrize(
    "host",
    [
        b"127.0.0.1%evil.example",
        b"[::1%evil.example]",
        b"x@localhost",
        b"localhost@evil.example",
        b"localhost/evil.example",
        b"localhost?x",
        b"localhost:80:80",
        b"localhost:x",
        b"localhost\n",
        b" localhost",
    ],
)
def test_a_host_with_anything_beside_it_is_no_loopback(host: bytes) -> None:
    refused = why_refused("PUT", "/items", {b"host": host}, None)
    assert refused is not None
    assert refused[0] == 403
    assert why_refused("PUT", "/items", {b"host": b"LocalHost:80"}, None) is None
