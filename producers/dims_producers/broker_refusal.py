"""Say in one sentence why the broker refuses a command, and what to do about it.

redis-py removes the code of some error replies (`READONLY`) and keeps others (`MISCONF`), so this looks at both the
class and the text. Source of the codes: https://github.com/valkey-io/valkey/blob/unstable/src/server.c
"""

from __future__ import annotations

import re

CLUSTER = (
    "the broker is a Redis Cluster, and DIMS needs one server that holds all keys. Use a broker without cluster mode "
    "(ElastiCache: cluster mode disabled)"
)
"""The sentence for a broker that DIMS refuses, because its keys are on several servers."""

_BY_CLASS = {
    "ReadOnlyError": "the broker is a read-only replica. Name the primary in DIMS_BROKER_URL, or promote this server",
    "NoPermissionError": "the broker's user lacks a right. Set the rights that the page Security lists",
    "AuthenticationError": "the broker refuses the user or password. Correct DIMS_BROKER_URL",
    "AuthenticationWrongNumberOfArgsError": "the broker wants a password. Add it to DIMS_BROKER_URL",
    "BusyLoadingError": "the broker reads its data from disk. Wait until it has finished",
    "MasterDownError": "the broker is a replica without a link to its primary. Repair the link, or name the primary",
    "ClusterDownError": CLUSTER,
    "ClusterCrossSlotError": CLUSTER,
    "MovedError": CLUSTER,
    "AskError": CLUSTER,
    "TryAgainError": CLUSTER,
    "OutOfMemoryError": "the broker is full (maxmemory). Give it more memory, or remove what fills it",
    "NoScriptError": "the broker has lost its scripts. DIMS sends them again",
    "MaxConnectionsError": "the broker has no free connection. Raise its maxclients",
}
_BY_TEXT = {
    "MISCONF": "the broker cannot save its data to disk. Free space on its disk, and read its log",
    "READONLY": _BY_CLASS["ReadOnlyError"],
    "NOREPLICAS": "too few replicas follow the broker (min-replicas-to-write). Start them, or lower the setting",
    "UNBLOCKED": "the broker has changed its role (failover). DIMS connects again",
    "NOAUTH": _BY_CLASS["AuthenticationWrongNumberOfArgsError"],
    "AUTHENTICATION REQUIRED": _BY_CLASS["AuthenticationWrongNumberOfArgsError"],
    "NOPERM": _BY_CLASS["NoPermissionError"],
    "WRONGPASS": _BY_CLASS["AuthenticationError"],
    "BUSY REDIS": "a script keeps the broker busy. Wait for it, or end it with SCRIPT KILL",
    "BUSY VALKEY": "a script keeps the broker busy. Wait for it, or end it with SCRIPT KILL",
    "OOM": _BY_CLASS["OutOfMemoryError"],
    "LOADING": _BY_CLASS["BusyLoadingError"],
    "MASTERDOWN": _BY_CLASS["MasterDownError"],
    "CLUSTERDOWN": CLUSTER,
    "CROSSSLOT": CLUSTER,
    "MAX NUMBER OF CLIENTS": _BY_CLASS["MaxConnectionsError"],
    "INVALID DATABASE": "the broker has no database of this number. Use a smaller number in DIMS_BROKER_URL, or 0",
    "WRONGTYPE": "another program has written a key that DIMS uses, with another type",
    "EXECABORT": "the broker refused a part of a transaction, so it ran none of it. Its log says why",
}


def fix_of_refusal(error: BaseException) -> str | None:
    """Return what an error reply of the broker means and how to fix it, or None if the reply is unknown.

    An EXECABORT wraps the refusal that caused it, and so does kombu's OperationalError.
    """
    text = str(error).upper()
    for code, sentence in _BY_TEXT.items():
        if code != "EXECABORT" and re.search(rf"\b{code}\b", text):
            return sentence
    for name in (cls.__name__ for cls in type(error).__mro__):
        if name in _BY_CLASS:
            return _BY_CLASS[name]
    if error.__cause__ is not None and (fix := fix_of_refusal(error.__cause__)):
        return fix
    return _BY_TEXT["EXECABORT"] if "EXECABORT" in text or type(error).__name__ == "ExecAbortError" else None


def explains_itself(error: BaseException) -> bool:
    """Return whether the broker itself says why it refuses. A server that reads its data is just starting."""
    fix = fix_of_refusal(error)
    return fix is not None and fix != _BY_CLASS["BusyLoadingError"]


def broker_reason(error: BaseException) -> str:
    """Return one line without a full stop: what to do, if that is known, and what the broker answered."""
    text = " ".join(str(error).split()) or type(error).__name__
    fix = fix_of_refusal(error)
    return f"{fix} ({_shortened(text, 120)})" if fix else _shortened(text, 300)


def _shortened(text: str, limit: int) -> str:
    return text.rstrip(".") if len(text) <= limit else f"{text[:limit]}…"


def wrong_type(key: str, expected: str) -> str:
    """Return the sentence for a key of DIMS that another program has written with another type."""
    return (
        f"the key {key} is not a {expected}: another program wrote it. Look at it, then remove it with "
        f"`redis-cli -u URL DEL {key}`"
    )
