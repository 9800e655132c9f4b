"""Evaluation of IAM policy documents: role trust, identity policies, bucket and key policies.

Pure functions over parsed JSON, so that every service that must honour a policy decides alike. What is evaluated and
how: IAM user guide, "Policy evaluation logic" (an explicit Deny wins, otherwise an Allow is needed).
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Effect = Literal["Allow", "Deny"]

_ARN_ACCOUNT = re.compile(r"^arn:aws[a-z-]*:(?:iam|sts)::(\d{12}):")


class MalformedPolicy(ValueError):
    """The document is not a policy; the message says what is missing."""


@dataclass(frozen=True)
class Principal:
    """Who asks. `arns` are the names of the caller that a policy may use: session and role, or user.

    `by_root` False: a statement that names the caller's whole account (its root) does not count.
    """

    arns: tuple[str, ...] = ()
    service: str | None = None
    by_root: bool = True

    @property
    def account(self) -> str | None:
        for arn in self.arns:
            if found := _ARN_ACCOUNT.match(arn):
                return found.group(1)
        return None


def parse(text: str) -> dict[str, Any]:
    """The document as a dict. Raises `MalformedPolicy`."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise MalformedPolicy(f"This policy contains invalid Json: {error}") from None
    if not isinstance(document, dict) or "Statement" not in document:
        raise MalformedPolicy("Syntax errors in policy: a policy is a JSON object with a Statement.")
    for statement in statements(document):
        if not isinstance(statement, dict) or statement.get("Effect") not in ("Allow", "Deny"):
            raise MalformedPolicy('Syntax errors in policy: each Statement has an Effect, "Allow" or "Deny".')
        if "Action" not in statement and "NotAction" not in statement:
            raise MalformedPolicy("Policy statement must contain actions.")
    return document


def statements(document: Mapping[str, Any]) -> list[Any]:
    found = document.get("Statement", [])
    return found if isinstance(found, list) else [found]


def decide(
    documents: Iterable[Mapping[str, Any]],
    *,
    action: str,
    resource: str | None = None,
    principal: Principal | None = None,
    context: Mapping[str, str] | None = None,
) -> Effect | None:
    """Allow, Deny, or None where no statement speaks of the request.

    `principal` None: identity policies (no Principal element); `resource` None: documents without Resource (trust).
    """
    answer: Effect | None = None
    for document in documents:
        for statement in statements(document):
            if not _speaks_of(statement, action, resource, principal):
                continue
            effect: Effect = statement["Effect"]
            if not _conditions_met(statement.get("Condition", {}), context or {}, unknown=effect == "Deny"):
                continue
            if effect == "Deny":
                return "Deny"
            answer = "Allow"
    return answer


def _speaks_of(statement: Mapping[str, Any], action: str, resource: str | None, principal: Principal | None) -> bool:
    if "Action" in statement:
        if not any(_like(a.lower(), action.lower()) for a in _listed(statement["Action"])):
            return False
    elif any(_like(a.lower(), action.lower()) for a in _listed(statement.get("NotAction"))):
        return False
    if resource is not None:
        if "Resource" in statement:
            if not any(_like(r, resource) for r in _listed(statement["Resource"])):
                return False
        elif "NotResource" not in statement or any(_like(r, resource) for r in _listed(statement["NotResource"])):
            return False
    if principal is None:
        return True
    if "Principal" in statement:
        return _names(statement["Principal"], principal)
    return "NotPrincipal" in statement and not _names(statement["NotPrincipal"], principal)


def _names(element: Any, principal: Principal) -> bool:
    if element == "*":
        return True
    if not isinstance(element, Mapping):
        return False
    if principal.service is not None and principal.service in _listed(element.get("Service")):
        return True
    named = _listed(element.get("AWS"))
    if principal.arns and "*" in named:
        return True
    account = principal.account
    root = {account, f"arn:aws:iam::{account}:root"} if account and principal.by_root else set()
    return any(name in principal.arns or name in root for name in named)


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]


def _like(pattern: str, value: str) -> bool:
    # IAM knows * and ? only; fnmatch's brackets are literal there
    return fnmatch.fnmatchcase(value, pattern.replace("[", "[[]"))


_COMPARISONS = {
    "stringequals": lambda wanted, found: wanted == found,
    "stringequalsignorecase": lambda wanted, found: wanted.lower() == found.lower(),
    "stringlike": _like,
    "arnequals": _like,
    "arnlike": _like,
    "bool": lambda wanted, found: wanted.lower() == found.lower(),
}
_NEGATED = {
    "stringnotequals": "stringequals",
    "stringnotlike": "stringlike",
    "arnnotequals": "arnequals",
    "arnnotlike": "arnlike",
}


def _conditions_met(conditions: Mapping[str, Any], context: Mapping[str, str], *, unknown: bool) -> bool:
    """All operators and keys must hold; an operator not evaluated here counts as `unknown` (the safe side)."""
    known = {key.lower(): value for key, value in context.items()}
    for operator, keys in conditions.items():
        name = operator.lower()
        optional = name.endswith("ifexists")
        name = name.removesuffix("ifexists")
        negated = name in _NEGATED
        compare = _COMPARISONS.get(_NEGATED.get(name, name))
        for key, wanted in keys.items():
            found = known.get(key.lower())
            if compare is None:
                held = unknown
            elif found is None:
                held = optional or negated
            else:
                held = any(compare(value, found) for value in _listed(wanted)) is not negated
            if not held:
                return False
    return True
