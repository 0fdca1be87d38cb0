"""The tables that `schema/sql/tables.sql` creates (a test compares the two).

Values are JSONB, so an integer stays an integer and a text a text. A value may be null; its `as_of` shows whether there
is one.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Sequence,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData()
Instant = DateTime(timezone=True)

sources = Table(
    "dims_sources",
    metadata,
    Column("source", Text, primary_key=True),
    Column("lease_epoch", BigInteger, nullable=False, server_default="0"),
    Column("lease_holder", Text),
    Column("lease_until", Instant),
    Column("not_before", Instant, comment="when its cooldown ends"),
    Column("scan_seconds", Float, comment="how long its last scan took"),
    comment="One row per source: which worker scans it now, and when it may be scanned again.",
)

metrics = Table(
    "dims_metrics",
    metadata,
    Column("metric", Text, primary_key=True),
    Column("source", Text, comment="NULL: derived"),
    Column("definition", Text, nullable=False),
    Column("requested_gen", BigInteger, nullable=False, server_default="0"),
    Column("measured_gen", BigInteger, nullable=False, server_default="0"),
    Column("not_before", Instant, comment="after a failure: when it may be measured again"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("error", Text, comment="of the latest attempt; NULL if it succeeded"),
    Column("failed_at", Instant),
    # The latest good reading and its verdict
    Column("value", JSONB),
    Column("unit", Text),
    Column("method", Text),
    Column("details", JSONB, comment="what the latest good reading holds beside its value"),
    Column("as_of", Instant),
    Column("status", Text),
    Column("severity", Text),
    Column("drift_pct", Float),
    # The last accepted value, and the last value that a person accepted
    Column("baseline", JSONB),
    Column("baseline_as_of", Instant),
    Column("baseline_version", BigInteger, nullable=False, server_default="0"),
    Column("accepted", JSONB),
    Column("accepted_as_of", Instant),
    Column("rejected", JSONB, comment="the value that a person rejected; readings in its band open no new request"),
    Column("rejected_as_of", Instant),
    Column(
        "attempts",
        Integer,
        nullable=False,
        server_default="0",
        comment="claims since the last recorded run: leases that were lost",
    ),
    Column("due_since", Instant, comment="every event that waits for a reading came at this time or later"),
    Column("retired_at", Instant, comment="when it was no longer configured; it is never due"),
    Column(
        "reading_gen",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="the last generation that needs a reading; a later one needs one only if the state differs",
    ),
    Column(
        "state", Text, comment="what its latest accepted reading was measured from; NULL: unknown, so it is measured"
    ),
    Column(
        "history_since",
        Instant,
        comment="when its first value under its present definition was measured; NULL: its whole history counts",
    ),
    Column(
        "expected_low",
        Float,
        comment="the lower end of the band that the latest good reading was judged by",
    ),
    Column("expected_high", Float),
    Index("dims_metrics_due", "source", postgresql_where=text("requested_gen > measured_gen")),
    comment="The current state of each metric. Due while requested_gen > measured_gen.",
)

schedules = Table(
    "dims_schedules",
    metadata,
    Column("rule", Text, primary_key=True),
    Column(
        "first_seen_at",
        Instant,
        nullable=False,
        server_default=func.clock_timestamp(),
        comment="earlier ticks do not count as missed",
    ),
    Column("last_tick", Instant, comment="the newest tick that was stored"),
    Column("last_event_at", Instant, comment="when the latest event that matches the rule was stored"),
    comment="Rules with a schedule, or with silent_after. The last tick shows which ticks were missed.",
)

runs = Table(
    "dims_verification_runs",
    metadata,
    Column("run_id", BigInteger, Identity(), primary_key=True),
    Column("trigger", Text, nullable=False, comment="event, verify"),
    Column("source", Text, comment="NULL: several"),
    Column("status", Text, nullable=False, comment="ok, partial, superseded"),
    Column("started_at", Instant, nullable=False),
    Column("finished_at", Instant, nullable=False, server_default=func.clock_timestamp()),
    Column("lease_epoch", BigInteger),
    Column("worker", Text),
    Column("readings", Integer, nullable=False, server_default="0"),
    Column("failed", Integer, nullable=False, server_default="0"),
    Column("held", Integer, nullable=False, server_default="0"),
    Column("api_calls", Integer, nullable=False, server_default="0", comment="calls to the API of S3 or AWS"),
    Column("result", JSONB, comment="of a workflow: everything that its report shows"),
    Index("dims_verification_runs_started", "started_at"),
    Index("dims_verification_runs_result", "source", "run_id", postgresql_where=text("result IS NOT NULL")),
)

history = Table(
    "dims_metrics_history",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("run_id", BigInteger, ForeignKey("dims_verification_runs.run_id"), nullable=False),
    Column("metric", Text, nullable=False),
    Column("value", JSONB),
    Column("unit", Text, nullable=False),
    Column("method", Text, nullable=False, comment="exact, incremental, derived, failed"),
    Column("as_of", Instant, nullable=False),
    Column("recorded_at", Instant, nullable=False, server_default=func.clock_timestamp()),
    Column("generation", BigInteger, comment="the requested_gen that this reading serves"),
    Column("baseline", JSONB, comment="the value it was judged against; NULL: none"),
    Column("drift_pct", Float),
    Column("status", Text),
    Column("severity", Text),
    Column("tier", Text),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("error", Text),
    Column("details", JSONB),
    Column("expected_low", Float, comment="the lower end of the band that it was judged by; NULL: none"),
    Column("expected_high", Float),
    Index("dims_metrics_history_metric_as_of", "metric", "as_of"),
    Index("dims_metrics_history_run", "run_id"),
    comment="Every reading.",
)

batch_ids = Sequence("dims_batch_ids", metadata=metadata)

events = Table(
    "dims_event_log",
    metadata,
    Column("seq", BigInteger, Identity(), primary_key=True),
    Column("producer", Text),
    Column("event_id", Text),
    Column("digest", Text, nullable=False, comment="hash of the producer, the id and the content"),
    Column("type", Text),
    Column("subject", Text),
    Column("event_time", Instant),
    Column("received_at", Instant, nullable=False, server_default=func.clock_timestamp()),
    Column("stream_id", Text),
    Column("outcome", Text, nullable=False, comment="planned, unmatched, rejected"),
    Column("reason", Text, comment="why it was rejected"),
    Column("data", JSONB),
    Column("payload", Text, comment="of a rejected event, cut to a maximum length"),
    Column("rules", ARRAY(Text), nullable=False, server_default="{}"),
    Column("metrics", ARRAY(Text), nullable=False, server_default="{}"),
    Column("batch_id", BigInteger, nullable=False),
    Column("replayed_at", Instant, comment="when it was last sent again"),
    Index(
        "dims_event_log_once",
        "digest",
        unique=True,
        postgresql_where=text("outcome <> 'rejected'"),
    ),
    Index("dims_event_log_batch", "batch_id"),
    Index("dims_event_log_received", "received_at"),
    Index("dims_event_log_unplanned", "outcome", "seq", postgresql_where=text("outcome <> 'planned'")),
    Index("dims_event_log_rejected", "stream_id", "digest", unique=True, postgresql_where=text("outcome = 'rejected'")),
    comment="Every event, once. An event with a known id and other content is stored beside the first.",
)

# For people who type the beginning of an id. The whole id, of up to 2,048 characters, is too long for an index
Index(
    "dims_event_log_id",
    func.left(events.c.event_id, 100).label("begins"),
    postgresql_ops={"begins": "text_pattern_ops"},
)

ingest_batches = Table(
    "dims_ingest_batches",
    metadata,
    Column("batch_id", BigInteger, primary_key=True, autoincrement=False),
    Column("metric", Text, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    comment="Links events to runs: the generation that one ingest batch gave a metric. "
    "The first reading with that generation or a later one serves the batch's events.",
)

approval_requests = Table(
    "dims_approval_requests",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("metric", Text, nullable=False),
    Column("kind", Text, nullable=False, server_default="drift", comment="drift; baseline: set by hand"),
    Column("state", Text, nullable=False, comment="open, approved, rejected, superseded, withdrawn, expired"),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("value", JSONB),
    Column("unit", Text, nullable=False),
    Column("as_of", Instant, nullable=False),
    Column("anchor", JSONB, comment="the value first proposed, the middle of the request's band"),
    Column("baseline", JSONB),
    Column("baseline_as_of", Instant),
    Column("baseline_version", BigInteger, nullable=False),
    Column("drift_pct", Float),
    Column("severity", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", JSONB, comment="the events since the baseline, and the reading's details"),
    Column(
        "run_id", BigInteger, ForeignKey("dims_verification_runs.run_id"), comment="NULL: the baseline was set by hand"
    ),
    Column("opened_at", Instant, nullable=False, server_default=func.clock_timestamp()),
    Column("updated_at", Instant, nullable=False, server_default=func.clock_timestamp()),
    Column("expires_at", Instant),
    Column("decided_at", Instant),
    Column("decided_by", Text),
    Column("known_by", Text, comment="how decided_by is known: option, environment, system, token, link, proxy"),
    Column("note", Text),
    Index("dims_approval_requests_metric", "metric", "id"),
    Index("dims_approval_requests_run", "run_id", postgresql_where=text("run_id IS NOT NULL")),
    Index("dims_approval_requests_open", "metric", unique=True, postgresql_where=text("state = 'open'")),
    comment="What waits for a person's approval, and what people decided.",
)

channels = Table(
    "dims_channels",
    metadata,
    Column("channel", Text, primary_key=True),
    Column("lease_until", Instant, comment="until then, one process sends"),
    Column("not_before", Instant, comment="after a failure: when it may be tried again"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("error", Text, comment="of the latest message; NULL if it was accepted"),
    Column("sent_at", Instant, comment="when the latest message was accepted"),
    comment="One row per channel: which process sends now, and when it may be tried again. Its URL is not stored.",
)

notifications = Table(
    "dims_notifications",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("channel", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("state", Text, nullable=False, comment="KIND:INCIDENT, such as drift:12, or flapping, or attention"),
    Column("facts", JSONB, nullable=False, comment="the values when the state began"),
    Column("run_id", BigInteger, ForeignKey("dims_verification_runs.run_id"), comment="NULL: the sweep found it"),
    Column("since", Instant, nullable=False, server_default=func.clock_timestamp()),
    Column("ended_at", Instant, comment="NULL: the state is active"),
    Column("ending", JSONB, comment="the values when the state ended"),
    Column("sent_at", Instant, comment="NULL: still to be sent"),
    Column("end_sent_at", Instant, comment="when its end was sent; set together with ended_at if no one needs to know"),
    Index(
        "dims_notifications_active",
        "channel",
        "metric",
        "state",
        unique=True,
        postgresql_where=text("ended_at IS NULL"),
    ),
    Index("dims_notifications_run", "run_id", postgresql_where=text("run_id IS NOT NULL")),
    Index(
        "dims_notifications_unsent",
        "channel",
        "id",
        postgresql_where=text("sent_at IS NULL OR (ended_at IS NOT NULL AND end_sent_at IS NULL)"),
    ),
    comment="What people are notified of: one row per channel for each period in which a metric is in a state.",
)

incidents = Table(
    "dims_incidents",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("story", BigInteger, nullable=False, comment="the number of the first incident that opened in the same run"),
    Column("metric", Text, nullable=False, comment="for a silence: rule:NAME"),
    Column("kind", Text, nullable=False, comment="drift, failing, limit, stale, approval, silence"),
    Column("state", Text, nullable=False, server_default="open", comment="open, acknowledged, closed"),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("severity", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("value", JSONB, comment="the latest value of the incident"),
    Column("unit", Text),
    Column("as_of", Instant, comment="when the latest value was measured"),
    Column("first_as_of", Instant, comment="when the value that opened the incident was measured"),
    Column("anchor", JSONB, comment="the value before the incident; it stays, whatever the baseline does"),
    Column("anchor_as_of", Instant),
    Column(
        "low",
        Float,
        comment="the lower end of the expected band when the incident opened; NULL: there was none",
    ),
    Column("high", Float),
    Column("run_id", BigInteger, comment="the run that opened it; NULL: the sweep or a person did"),
    Column("request", BigInteger, comment="the approval request of a held value"),
    Column("opened_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column(
        "flaps", Integer, nullable=False, server_default="0", comment="how often it came back within the quiet period"
    ),
    Column("flapping_until", Instant, comment="until then, a recovery does not end it"),
    Column("calm_at", Instant, comment="since when a flapping incident has been calm; NULL: it is not"),
    Column("acknowledged_at", Instant),
    Column("acknowledged_by", Text),
    Column("note", Text),
    Column("closed_at", Instant),
    Column("closed_by", Text),
    Column(
        "known_by",
        Text,
        comment="how the name of the last person is known: option, environment, system, token, link, proxy",
    ),
    Column(
        "resolution",
        Text,
        comment="recovered, expected, approved, rejected, expired, timeout, retired; NULL: it is not closed",
    ),
    Column("closing_reason", Text),
    Column(
        "over_at",
        Instant,
        comment="when the condition was over; a person may close an incident before that, and then it does not open "
        "again",
    ),
    Index("dims_incidents_active", "metric", "kind", unique=True, postgresql_where=text("state <> 'closed'")),
    Index("dims_incidents_metric", "metric", "id"),
    Index("dims_incidents_lasting", "metric", postgresql_where=text("over_at IS NULL")),
    Index("dims_incidents_closed", "closed_at", postgresql_where=text("state = 'closed'")),
    comment="One row per period in which a metric, or what reports to DIMS, is not healthy. A row ends when it "
    "recovers, or a person closes it.",
)

expectations = Table(
    "dims_expectations",
    metadata,
    Column("metric", Text, primary_key=True),
    Column("day", Date, comment="the day (UTC) that the band is for; NULL: it has to be computed again"),
    Column("definition", Text, nullable=False, comment="of the metric and the policy that the band was computed with"),
    Column("band", JSONB, comment="NULL: there are too few accepted values"),
    Column("computed_at", Instant, nullable=False, server_default=func.clock_timestamp()),
    comment="The expected band of each metric for one day, computed once a day.",
)

mutes = Table(
    "dims_mutes",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("pattern", Text, nullable=False, comment="a pattern of metric names, or source:NAME"),
    Column("reason", Text, nullable=False),
    Column("muted_by", Text, nullable=False),
    Column("known_by", Text, nullable=False),
    Column("created_at", Instant, nullable=False, server_default=func.clock_timestamp()),
    Column("until", Instant, nullable=False),
    Column("ended_at", Instant, comment="when a person ended it early"),
    Index("dims_mutes_until", "until", postgresql_where=text("ended_at IS NULL")),
    comment="For which metrics DIMS sends no messages, until when and why.",
)

snapshots = Table(
    "dims_snapshots",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column(
        "daily",
        Boolean,
        nullable=False,
        server_default="false",
        comment="taken by the sweep, and deleted after settings.snapshot_days",
    ),
    Column("taken_at", Instant, nullable=False, server_default=func.clock_timestamp()),
    Column("note", Text),
    comment="Named points in time, to compare with.",
)

snapshot_values = Table(
    "dims_snapshot_values",
    metadata,
    Column("snapshot_id", BigInteger, ForeignKey("dims_snapshots.id", ondelete="CASCADE"), primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("value", JSONB),
    Column("unit", Text),
    Column("as_of", Instant, nullable=False),
    Column("status", Text),
    Column("baseline", JSONB),
    Column("baseline_as_of", Instant),
    comment="What each metric was at a snapshot: its last good reading then, and its baseline.",
)

retention_runs = Table(
    "dims_retention_runs",
    metadata,
    Column("day", Date, primary_key=True),
    Column("started_at", Instant, nullable=False, server_default=func.clock_timestamp()),
    Column("finished_at", Instant, comment="NULL: there may be more to delete"),
    Column("readings", BigInteger, nullable=False, server_default="0"),
    Column("events", BigInteger, nullable=False, server_default="0"),
    Column("runs", BigInteger, nullable=False, server_default="0"),
    comment="One row per day (UTC): its snapshot was taken, and so many old rows were deleted.",
)

processes = Table(
    "dims_processes",
    metadata,
    Column("process", Text, primary_key=True, comment="role@host, or the name that Celery gives a worker"),
    Column("host", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
    Column("config_hash", Text, nullable=False),
    Column("queues", ARRAY(Text), nullable=False, server_default="{}"),
    Column("started_at", Instant, nullable=False),
    Column(
        "seen_at",
        Instant,
        nullable=False,
        server_default=func.clock_timestamp(),
        comment="its last sign of life, by the clock of the database",
    ),
    Column("last_sweep_at", Instant, comment="when it last sent wake-ups for everything that waited"),
    Column("last_claim_at", Instant, comment="when one of its workers last claimed a source"),
    Column("last_stored_at", Instant, comment="when it last stored an event"),
    Column("clock_offset", Float, comment="seconds by which the clock of its host is ahead of the database"),
    Column("problem", Text, comment="why it makes no progress, or NULL if it does"),
    comment="One row per process of DIMS: where it runs, which version and configuration it has, and when it last "
    "made progress.",
)

database = Table(
    "dims_database",
    metadata,
    Column(
        "only_row", Boolean, primary_key=True, server_default=text("true"), comment="always true: the table has one row"
    ),
    Column(
        "id",
        Uuid,
        nullable=False,
        server_default=func.gen_random_uuid(),
        comment="a random id, which comes with a dump of the database",
    ),
    Column(
        "created_at", Instant, nullable=False, server_default=func.clock_timestamp(), comment="when the id was made"
    ),
    CheckConstraint("only_row", name="dims_database_only_row_check"),
    comment="The identity of this database. The broker records it, so that two projects never share a broker database.",
)
