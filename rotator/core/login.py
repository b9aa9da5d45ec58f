"""Reading a first pair that a person or a mounted file hands over: a token answer, or a bare refresh token."""

import json

from rotator.core.grant import classify
from rotator.core.model import Granted


def parse_pair(text: str) -> Granted | str:
    """Read a token answer (JSON or form) or a bare refresh token; a str says what is wrong, never what was read.

    A bare refresh token comes back as `Granted` with an empty access token.
    """
    text = text.strip().removeprefix("\ufeff")
    if not text:
        return "it is empty; give a token answer as JSON, or a bare refresh token"
    answer = classify(200, {}, text.encode(), 0.0)
    if isinstance(answer, Granted):
        if answer.refresh_token is None:
            return "it holds no refresh_token; give the whole answer of the token endpoint"
        return answer
    if text.startswith(("{", "[", "<")):
        return "it is no token answer: a JSON object with refresh_token is expected"
    if text.startswith('"'):
        try:
            text = str(json.loads(text))
        except ValueError:
            return "it starts with a quote but is no JSON string"
    if any(character.isspace() or not character.isprintable() for character in text):
        return "a refresh token holds no blanks or control characters; was more than the token pasted?"
    return Granted("", text, {})
