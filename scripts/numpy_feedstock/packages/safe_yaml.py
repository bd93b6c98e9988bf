"""YAML that strangers wrote: read without aliases, which a few lines can make endless."""

from typing import Any

from ..errors import FeedstockError
from ..policy import limits, time_limit


class UnsafeYaml(FeedstockError):
    """YAML that is too large, that has aliases, or that is no YAML."""


def load(text: str, what: str) -> Any:
    """Return the content of a YAML text.

    what : names the text in messages

    Raises UnsafeYaml.
    """
    import yaml

    if len(text) > limits().yaml_bytes:
        raise UnsafeYaml(
            f"{what} is too large", expected=f"at most {limits().yaml_bytes} bytes (policy.yaml)"
        )
    try:
        with time_limit(f"reading {what}"):
            _check_tokens(text, what)
            return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnsafeYaml(f"{what} is not YAML", found=str(error)[:300]) from None


def _check_tokens(text: str, what: str) -> None:
    """Raise UnsafeYaml for an alias, and for values that are nested too deeply."""
    import yaml

    starts = (
        yaml.FlowSequenceStartToken,
        yaml.FlowMappingStartToken,
        yaml.BlockSequenceStartToken,
        yaml.BlockMappingStartToken,
    )
    ends = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
    depth = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.AliasToken):
            raise UnsafeYaml(
                f"{what} has an alias",
                expected="YAML without aliases",
                found=f"*{token.value} in line {token.start_mark.line + 1}",
            )
        depth += isinstance(token, starts) - isinstance(token, ends)
        if depth > limits().depth:
            raise UnsafeYaml(
                f"{what} is nested too deeply", expected=f"at most {limits().depth} (policy.yaml)"
            )
