"""The hook for tokens."""

from __future__ import annotations

import pytest

from observatory_storage import ConfigError, bearer_token


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("Bearer s3cret", True),
        ("bearer  s3cret ", True),
        ("BEARER other", True),
        ("Bearer s3cre", False),
        ("Bearer s3cret2", False),
        ("Bearer S3CRET", False),
        ("Bearer s3cret other", False),
        ("Bearer ", False),
        ("Bearer", False),
        ("s3cret", False),
        ("Basic s3cret", False),
        ("Bearer s3cr\u00e9t", False),
        ("", False),
        (None, False),
    ],
)
def test_only_a_known_token_is_accepted(header: str | None, accepted: bool) -> None:
    authorize = bearer_token("s3cret", "other")
    environ = {} if header is None else {"HTTP_AUTHORIZATION": header}
    assert authorize(environ) is accepted


@pytest.mark.parametrize("tokens", [(), ("",), ("good", ""), ("two words",), ("caf\u00e9",), (7,)])
def test_tokens_that_no_header_can_have_are_refused(tokens: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="token: must be") as error:
        bearer_token(*tokens)
    assert not any(str(token) in str(error.value) for token in tokens if token)
