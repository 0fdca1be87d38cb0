"""Check that each bucket reports its changes, and that its filters let through what the metrics read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from dims_worker.checks.check import Check
from dims_worker.checks.sources import LIMIT, load_boto3, s3_metrics, split_fix
from dims_worker.config import Config, S3Metric, S3Source
from dims_worker.errors import MeasureError
from dims_worker.events import S3_PREFIX
from dims_worker.probes.base import Deadline
from dims_worker.probes.s3.errors import translate_s3_errors
from dims_worker.probes.s3.probe import s3_client

CREATED = ("ObjectCreated:Put", "ObjectCreated:Post", "ObjectCreated:Copy", "ObjectCreated:CompleteMultipartUpload")
REMOVED = ("ObjectRemoved:Delete", "ObjectRemoved:DeleteMarkerCreated")
TARGETS = ("QueueConfigurations", "TopicConfigurations", "LambdaFunctionConfigurations", "CloudFunctionConfigurations")
GUIDE = "The section `The S3 Lambda` of the page Deploying shows a notification that covers everything."
_REFUSED = ("AccessDenied", "403", "AllAccessDisabled")
_UNKNOWN = ("NotImplemented", "501", "MethodNotAllowed", "405", "XNotImplemented", "InvalidRequest", "404")


@dataclass(frozen=True, slots=True)
class NotificationFilter:
    """The events that one target of a bucket's notifications gets: kinds, and how their keys begin and end."""

    events: tuple[str, ...]
    prefix: str = ""
    suffix: str = ""

    def sends(self, kind: str) -> bool:
        return any(fnmatchcase(kind, pattern.removeprefix("s3:")) for pattern in self.events)

    def covers(self, prefix: str, suffixes: Sequence[str]) -> bool:
        """Return whether every key that begins with `prefix`, and ends with one of `suffixes`, gets through."""
        return prefix.startswith(self.prefix) and all(each.endswith(self.suffix) for each in suffixes or ("",))

    def __str__(self) -> str:
        return f"{self.prefix}*{self.suffix}"


def notification_checks(config: Config) -> dict[str, Callable[[], Check]]:
    """Return the check of each bucket, by a name. You can call them side by side."""
    buckets = {name: source for name, source in config.sources.items() if isinstance(source, S3Source)}
    return {f"events of {name}": partial(notification_check, config, name, source) for name, source in buckets.items()}


def notification_check(config: Config, name: str, source: S3Source) -> Check:
    """Return whether the bucket reports the changes that its metrics depend on."""
    label = f"events of {name}"
    if not any(_is_s3(rule_name, rule.on) for rule_name, rule in config.rules.items()):
        return Check(label, "ok", "no rule reacts to changes of buckets, so none are needed")
    if not (metrics := s3_metrics(config, name)):
        return Check(label, "ok", "no metric reads the bucket")
    load_boto3(source)
    try:
        answer = _fetch(source)
    except MeasureError as error:
        summary, fix = split_fix(str(error))
        return Check(label, "warning", f"cannot be checked: {summary}", fix)
    if isinstance(answer, Check):
        return Check(label, answer.state, answer.summary, answer.fix)
    return coverage_check(label, source.bucket, answer, metrics)


def _is_s3(name: str, patterns: Sequence[str]) -> bool:
    kinds = [f"{S3_PREFIX}{kind}" for kind in (*CREATED, *REMOVED)]
    return name in kinds or any(fnmatchcase(kind, pattern) for kind in kinds for pattern in patterns)


def _fetch(source: S3Source) -> Mapping[str, Any] | Check:
    """Return the bucket's notification configuration, or the check that says why it is unknown."""
    with translate_s3_errors(source):
        client = s3_client(source, Deadline.after(LIMIT))
    with contextlib.closing(client), translate_s3_errors(source):
        try:
            answer: Mapping[str, Any] = client.get_bucket_notification_configuration(Bucket=source.bucket)
        except client.exceptions.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _REFUSED:
                return Check(
                    "",
                    "warning",
                    "cannot be checked: access denied",
                    f"Grant s3:GetBucketNotification on arn:aws:s3:::{source.bucket} to the credentials of this host.",
                )
            if code in _UNKNOWN:
                fix = "Look in the console of this store whether it reports uploads and deletions."
                return Check("", "warning", f"cannot be checked: this store does not show them ({code})", fix)
            raise
        return answer


def coverage_check(label: str, bucket: str, answer: Mapping[str, Any], metrics: Sequence[S3Metric]) -> Check:
    """Return whether a notification configuration covers all keys that the metrics read."""
    if "EventBridgeConfiguration" in answer:
        return Check(label, "ok", f"{bucket} sends every change to EventBridge")
    filters = list(_filters(answer))
    if not filters:
        return Check(label, "warning", f"{bucket} has no notifications, so no upload causes an event", GUIDE)
    findings = [finding for kinds in (CREATED, REMOVED) for finding in _missing(filters, kinds, metrics)]
    if findings:
        return Check(label, "warning", f"{bucket} does not report {'; nor '.join(dict.fromkeys(findings))}", GUIDE)
    return Check(label, "ok", f"{bucket} reports uploads and deletions of all keys that its metrics read")


def _filters(answer: Mapping[str, Any]) -> Iterator[NotificationFilter]:
    for target in TARGETS:
        configured = answer.get(target) or ()
        for each in [configured] if isinstance(configured, Mapping) else configured:
            rules = each.get("Filter", {}).get("Key", {}).get("FilterRules", ())
            named = {str(rule["Name"]).lower(): str(rule["Value"]) for rule in rules}
            yield NotificationFilter(tuple(each.get("Events", ())), named.get("prefix", ""), named.get("suffix", ""))


def _missing(filters: Sequence[NotificationFilter], kinds: Sequence[str], metrics: Sequence[S3Metric]) -> Iterator[str]:
    """Yield what no filter lets through: kinds of events, or prefixes."""
    action = "uploads" if kinds is CREATED else "deletions"
    sending = {kind: [each for each in filters if each.sends(kind)] for kind in kinds}
    absent = [kind for kind, sent in sending.items() if not sent]
    if absent:
        yield action if len(absent) == len(kinds) else f"{', '.join(absent)}"
    wanted = dict.fromkeys((prefix, metric.suffix) for metric in metrics for prefix in metric.listed)
    for prefix, suffixes in wanted:
        for sent in sending.values():
            if sent and not any(each.covers(prefix, suffixes) for each in sent):
                let = ", ".join(dict.fromkeys(map(str, sent)))
                place = f"below {prefix}" if prefix else "of the whole bucket"
                yield f"all {action} {place} (only {let})"
