"""Every bound of the gateway, each with its reason. What an operator may change has a setting that starts here."""

from __future__ import annotations

from typing import Final

REQUEST_BYTES_MAX: Final = 64 * 1024 * 1024
"""OTLP 1.11 recommends 64 MiB for a request, after decompression."""

RESPONSE_BYTES_MAX: Final = 4 * 1024 * 1024
"""OTLP 1.11 recommends 4 MiB for a response."""

NESTING_MAX: Final = 100
"""Levels of messages in one request: what protobuf's parsers allow; a deeper one would be refused further down the
line."""

ROWS_MAX: Final = 160_000
"""Rows, scopes or resources in one batch. The smallest row takes 2 bytes on the wire and 400 in our tables: without a
bound a request of 64 MiB could ask for 12 GiB. A batch of real spans of 64 MiB has about 140,000 rows of 464 bytes."""

ROWS_KEPT: Final = 16_384
"""The scanner keeps tables of this size between batches; larger ones are given back."""

OUTBOX_PIPELINES_MAX: Final = 64
"""Streams in one outbox."""

OUTBOX_DATABASES_MAX: Final = 2 * OUTBOX_PIPELINES_MAX + 16
"""A stream and its parked rows for each pipeline, the state, the records of each book: LMDB wants it in advance."""

RECORDS_APPLIED_MAX: Final = 1_000
RECORDS_APPLIED_BYTES_MAX: Final = 4 * 1024 * 1024
"""Side records that a book gets at one time: the fixed costs of its transaction are small by then."""

OUTBOX_HEADROOM_BYTES: Final = 64 * 1024 * 1024
"""Map size beyond the cap (and a quarter of it): a full copy-on-write store needs free pages to delete, too."""

PENDING_BYTES_MAX: Final = 32 * 1024 * 1024
"""Requests that wait to be processed; at this size the door says "later". A single larger request passes when none
waits."""

COALESCE_BYTES_MAX: Final = 1024 * 1024
"""Requests are joined up to this size before a scan: the fixed costs of a batch are small by then (2,000 spans)."""

COALESCE_REQUESTS_MAX: Final = 256
"""The same for a flood of tiny requests, so that the first one of a batch does not wait for the last."""

GATHER_S: Final = 0.005
"""A request that comes within this time of the last batch waits so long for others: under load batches are several
times larger for it; a lone request does not wait. Half of the 10 ms that an acknowledgement may take at 10,000
spans/s."""

RETRY_DELAY_S: Final = 1.0
"""What a refused sender is told. The Python SDK drops a batch at once if the delay exceeds what is left of its 10 s."""

GRPC_CALLS_MAX: Final = 1024
"""Calls of one signal under way at one time; one more is told to come again."""

EXPORT_BYTES_MAX: Final = 1024 * 1024
"""Entries are merged up to this size: the cost of a call is small by then, and every server takes it (grpc's default:
4 MiB)."""

EXPORT_ITEMS_MIN: Final = 2048
EXPORT_WAIT_S: Final = 0.05
"""A sender waits so long for so many items before it sends fewer, unless a `batch` processor says otherwise. They are
in the outbox and acknowledged by then; a call for each small batch would cost more than all the rest."""

ENTRIES_MERGED_MAX: Final = 256
"""Entries in one merged request."""

SPLITS_MAX: Final = 24
"""How often a batch refused for its size is halved: enough for a row of 4 bytes in 64 MiB."""

DRAIN_S: Final = 10.0
"""How long a stopping gateway tries to empty its outbox; what is left is sent after the next start."""

RETRY_ASKED_S_MAX: Final = 3600.0
"""The longest wait that a backend can ask for: a date far away must not silence an exporter until the next start."""

HTTP_THREADS: Final = 4
"""JSON bodies that are decoded at one time, off the event loop."""

HTTP_CONNECTIONS_MAX: Final = 64
"""Connections of the HTTP client to all backends together."""

CONDITION_CHARS_MAX: Final = 16_384
"""A filter condition: hand-written ones have some hundred characters, generated lists of names some thousand."""

CONDITION_NESTING_MAX: Final = 50
"""Parentheses and `not` inside one another in a condition: each level is a Python call, when parsing and per batch."""

VERDICTS_KEPT: Final = 4096
"""Answers that a pattern keeps between batches: more than the distinct names or routes of one platform."""

VERDICT_CHARS_MAX: Final = 256
"""Longer texts are matched anew each time, so that the kept answers of one pattern stay under 5 MiB."""

EXPOSITION_FAMILIES_MAX: Final = 1_000
"""Metrics that processors may register: their number follows from the configuration; more is a mistake in it."""

EXPOSITION_SERIES_MAX: Final = 2_000
"""Series of one metric, before all further ones share the overflow series: what a Prometheus of one machine takes
without thought, and more than a dashboard can show. Enough for 10 services with 30 span names of 6 kinds and states."""

LABEL_CHARS_MAX: Final = 1_024
"""Characters of a label value; the rest is cut. Where somebody sets Prometheus' own limit, it is of this size."""

LABEL_KEYS_DENSE_MAX: Final = 16_384
"""Possible label combinations of a batch up to which a table of them (128 KiB) is counted out instead of sorting the
rows: the table costs less than the sort up to about this size."""

EXEMPLAR_INTERVAL_S: Final = 1.0
"""An exemplar stays at least so long before the next one replaces it: scrapes come every few seconds, and looking up a
trace id for each bucket of each batch would cost more than all counting."""

RECEIVED_SERIES_MAX: Final = 20_000
"""Series of all received metrics together: about 1 KiB each, so 20 MiB at the most likely worst."""

RECEIVED_FAMILIES_MAX: Final = 2_000
"""Names of received metrics: an application has dozens; thousands mean that something else stands in the name."""

RECEIVED_TARGETS_MAX: Final = 2_000
"""Resources with a `target_info`: one a process that sends metrics."""

RECEIVED_LABELS_MAX: Final = 64
"""Labels of a received series; a point with more is refused."""

RECEIVED_BUCKETS_MAX: Final = 256
"""Buckets of a received histogram, each a line in every scrape; SDKs send 16 by default."""

EXPONENTIAL_BUCKETS_MAX: Final = 64
"""Buckets that an exponential histogram is reduced to, since the text formats know classic ones only."""

EXPONENTIAL_SCALE_MAX: Final = 2
"""The finest scale of such buckets: 4 for each doubling, bounds 19 % apart. Finer ones would be many, rarely stable."""

EXEMPLAR_LABEL_CHARS_MAX: Final = 128
"""OpenMetrics 1.0: the names and values of an exemplar's labels together."""

OPEN_JOBS_MAX: Final = 100_000
"""Jobs under way that `lost_jobs` remembers: about 1 KiB each, and more than the workers of one platform have."""

OPEN_JOB_BYTES_MAX: Final = 4096
"""Of one such job in the file: ids, a dozen short fields, and the resource of its worker."""

LOST_JOBS_REQUEST_MAX: Final = 1_000
"""Lost jobs in one request: all workers of a platform may vanish at once."""

STOP_GRACE_S: Final = 3.0
"""How long running requests may take to end when the gateway stops."""

EXPONENTIAL_BUCKETS_READ_MAX: Final = 4_096
"""Buckets on one side of a received exponential histogram; SDKs keep 160, and all are looked at one by one."""

OUTBOX_RECENT_BYTES_MAX: Final = 8 * 1024 * 1024
"""The newest batches stay in memory up to this size, so that exporters that keep up need not read the outbox's file."""

MALLOC_KEPT_BYTES: Final = 8 * 1024 * 1024
"""Freed memory that the C library keeps for the next batch: the buffers of a few batches of COALESCE_BYTES_MAX."""

FAILURE_NAME_CHARS_MAX: Final = 1_024
"""Characters of an exception's type, a span's name or an attribute that rules look at; begin and end stay."""

FAILURE_MESSAGE_CHARS_MAX: Final = 8_192
"""The same of a message: a provider's whole answer fits in, a prompt or an image that somebody logged does not."""

FAILURE_STACK_CHARS_MAX: Final = 65_536
"""The same of a stack trace: chains of five exceptions have some 10,000."""

FAILURE_CHAIN_MAX: Final = 32
"""Exceptions of one chain that are looked at."""

FAILURE_QUOTES_MAX: Final = 16
"""Hosts, URLs and types that are looked for in one message: further ones repeat the first."""

FAILURES_KEPT: Final = 4_096
"""Verdicts kept between batches, about 400 bytes each: more than the distinct failures of a platform on a bad day."""

FAILURE_TEXTS_KEPT: Final = 1_024
"""Texts of one field, such as exception types or peers, whose patterns are remembered: at most 1 KiB each."""

FAILURES_JUDGED_MAX: Final = 128
"""New failures of one batch that are looked at in full; beyond it the exception's type and the attributes decide. At
about 0.2 ms each a storm of different messages costs a batch 25 ms."""

FAILURE_RULES_MAX: Final = 1_000
"""Rules of a pack, and families of it: hand-written ones have some hundred."""

FAILURE_PATTERNS_BYTES_MAX: Final = 16 * 1024 * 1024
"""Memory of one set of patterns while it matches. RE2 forgets what it has worked out at this size and goes on; the
shipped ones work with 4 MiB, but slower in a storm of different messages."""

LOGGED_EXCEPTION_CHARS_MAX: Final = 8 * 1024 * 1024
"""Of all exceptions together that were logged and wait for their spans: some thousand with their stack traces."""

LOGGED_STACK_CHARS_MAX: Final = 32_768
"""Of one such stack trace: half of what is looked at, so that a few deep ones do not drive out the others."""

FAILURE_ORIGINS_KEPT: Final = 16_384
"""Failed spans that are remembered, about 300 bytes each, so that a parent's failure is known as the same one."""

NEWS_REQUEST_MAX: Final = 200
"""New error groups in one request of events."""

FINGERPRINT_FRAMES: Final = 5
"""Own frames that tell two failures apart; further out are loops and entry points."""

FINGERPRINT_WORDS: Final = 24
"""Words of a message that do; further on stand details."""

FINGERPRINT_LINES: Final = 4
"""Lines of a message whose wording counts: what follows is output of tools and advice."""

FINGERPRINT_MESSAGE_CHARS_MAX: Final = 1_024
"""Characters of it that are looked at."""

CLASSIFY_LINE_BYTES_MAX: Final = 4 * 1024 * 1024
"""A line of `errors classify`: a stack trace of a megabyte, escaped, fits in."""

REDACTION_HITS_MAX: Final = 16_384
"""Places in one request that may hold a secret, before all of it is decoded: each costs a call into Python."""

AUTOMATA_KEPT: Final = 16
"""Compiled automata of redaction, up to 400 KB each: four for a choice of kinds, and most pipelines choose the same."""

REDACTION_TEXTS_KEPT: Final = 8_192
REDACTION_TEXT_CHARS_KEPT: Final = 256
"""Texts without a secret that are remembered, so that names and hosts are searched once: 4 MiB at most."""

REDACTION_KEYS_KEPT: Final = 4_096
"""Attribute keys whose verdict is remembered: a platform has some hundred."""

REDACTION_HEAD_CHARS: Final = 128
"""Of a value that is cut for its size: enough to see what it was."""

REDACTION_LINE_BYTES_MAX: Final = 64 * 1024 * 1024
"""A line for the command `redact`: as much as a request may have."""

MONEY_DIGITS_MAX: Final = 12
MONEY_DECIMALS_MAX: Final = 30
"""Of a price before and behind the point: no price is longer, and an integer of a megabyte takes minutes to read."""

LEDGER_DEPTH_MAX: Final = 128
"""Ancestors of a span that yield their claim on a GPU to it; real traces nest ten deep, and a loop of parents ends."""

LEDGER_WEIGHT_MAX: Final = 10_000
"""Weight of a claim, such as hundredths of a percent of utilisation: exact sums of fractions grow with it."""

LEDGER_SHARES_MAX: Final = 1_000_000
"""Parts of a GPU that fixed shares are counted in: sevenths, percents and millionths fit together below it."""

LEDGER_FINE_BITS_MAX: Final = 65_536
"""Of the number that makes all splits of a period whole: sums of percents up to 16 at once need 2,300."""

LEDGER_CELLS_MAX: Final = 16 * 1024 * 1024
"""Claims times periods of one allocation; 100 bytes each while it runs."""

PRICE_ROWS_MAX: Final = 20_000
"""Rows of one price file: the longest public lists have some 5,000."""

PRICE_FILE_BYTES_MAX: Final = 16 * 1024 * 1024
"""The same in bytes."""

PRICE_LOOKUPS_KEPT: Final = 4_096
"""Answers of the price book that are remembered, 500 bytes each: one a distinct provider, model, GPU and region."""

LEDGER_CASE_BYTES_MAX: Final = 64 * 1024 * 1024
"""A case for `ledger allocate`: half a million claims."""

OCCURRENCE_MESSAGE_CHARS_MAX: Final = 512
"""Of the message that shows how failures of a group look: the rest is in the span."""

OCCURRENCE_HEADER_BYTES_MAX: Final = 64 * 1024 * 1024
"""The first line of a record of failures: the judged ones of a batch take 128 groups of 30 KiB at most, escaped."""

ERROR_GROUPS_MAX: Final = 10_000
"""Groups that are kept; a platform has some hundred. Failures of further ones share the group `overflow`: a message
that is different each time must not fill the disk."""

ERROR_GROUP_SERVICES_MAX: Final = 100
"""Services that are counted by name in one group; further ones share the name `__overflow__`."""

ERROR_GROUP_RETENTION_S: Final = 90 * 24 * 3600.0
"""A group that was not seen for so long is forgotten: what comes back after a season is news."""

OCCURRENCES_KEPT_S: Final = 24 * 3600.0
OCCURRENCES_KEPT: Final = 1_000_000
"""How long, and of how many failures and of their traces, it is remembered that they were counted. Senders try again
for minutes; a row takes 20 bytes."""

ERROR_NEWS_MAX: Final = 1_000
"""New and regressed groups that wait to be told about; of more the oldest go."""

ERROR_GROUPS_LISTED_MAX: Final = 10_000
"""Groups that one question may ask for: all of them."""

STORE_BUSY_S: Final = 10.0
"""How long a command and the gateway wait for each other's write to a file. Either takes far below a second."""

STORE_PRUNE_S: Final = 3600.0
"""How often a store forgets what is too old."""

GPU_ID_CHARS_MAX: Final = 256
"""Characters of a GPU's id or name, or of a host's name, in a sample: a UUID has 40, a DNS name 253. A longer id is no
id: what would be kept for each of them has no other bound in length."""

GPU_ROWS_FINE: Final = 40_960
"""Samples of one quantity of one GPU kept as they came: an hour at 10 Hz, as long as the jobs of a platform take."""

GPU_FINE_S: Final = 7_200
"""And not longer than this: what is older needs no single samples, at whatever rate they came."""

GPU_ROWS_COARSE: Final = 8_640
GPU_COARSE_S: Final = 10
"""Before that, one row in so many seconds: a day. A GPU with four quantities takes 7 MB at 10 Hz, 3 MB at 1 Hz."""

GPU_BYTES_MAX: Final = 256 * 1024 * 1024
"""All timelines together: a day of 38 GPUs at 10 Hz, of 100 at 1 Hz. Beyond it the oldest samples of all go first."""

GPU_HOSTS_MAX: Final = 1_024
GPU_HOST_NAMES_MAX: Final = 8
GPU_HOST_GPUS_MAX: Final = 256
"""Hosts, names of one, and its GPUs with MIG instances: 16 boards with 7 instances each, and their replacements."""

GPU_SPAN_GPUS_MAX: Final = 64
"""GPUs of one span: more than any host has, so that a broken attribute does not multiply the work."""

GPU_INTERVAL_S_MAX: Final = 60
"""Samples further apart say nothing about a span, however regular they are: between them lies a gap."""

GPU_AHEAD_S_MAX: Final = 3_600
"""A sample so far ahead of the clock of its host is dropped: it would hold off all that follow."""

GPU_BREAKS_MAX: Final = 64
"""Changes of a series' source that are remembered."""

GPU_SKEW_WINDOW_S: Final = 600
"""The least delay in this time tells how far a host's clock is off; it follows a clock that drifts."""

GPU_METRICS_MAX: Final = 4_096
"""GPU metrics in one batch, at some 80 us each: 256 requests of 10 metrics are one batch."""

GPU_POINTS_SINGLE_MAX: Final = 16_384
GPU_POINTS_SERIES_MAX: Final = 8_192
GPU_POINTS_COMPARED_BYTES_MAX: Final = 128 * 1024 * 1024
"""Points of these that are read one by one, at some 8 us each; series of points that are read in bulk, at some 40 us;
and bytes that are compared for that: each is a tenth of a second or four. A scrape of 16 GPUs has 100 points. Agents'
points are read in bulk: 8 GPUs have 40 series, all that a sampler keeps of them is 20 MB, compared five times."""

DCGM_BODY_BYTES_MAX: Final = 16 * 1024 * 1024
"""The answer of a DCGM exporter: 8 GPUs with 30 fields have 100 KB; with 7 MIG instances each and a line for each pod
some MB."""

DCGM_GPUS_MAX: Final = 1_024
"""GPUs and MIG instances behind one exporter: a node has at most 16 with 7 instances each."""

DCGM_LINE_CHARS_MAX: Final = 8_192
"""A line of an exporter: some 300 characters; with all labels of a pod some thousand."""

DCGM_LABELS_KEPT: Final = 2_048
"""Texts of labels whose meaning is remembered, one for each GPU and pod: at most 16 MiB, usually 1 MiB."""

DCGM_ENDPOINTS_MAX: Final = 1_024
"""Exporters that one receiver asks: each has a task and a connection."""

NVML_WAITING_BYTES_MAX: Final = 16 * 1024 * 1024
"""Samples of this machine's GPUs that wait while the door says "later": 8 GPUs at 10 Hz make 70 KB a second, so about
four minutes."""

GPU_JOURNAL_S: Final = 900.0
"""GPU samples of so many seconds survive a restart: spans that are under way by then are minutes long."""

GPU_JOURNAL_BYTES_MAX: Final = 512 * 1024 * 1024
"""The file's size at most: 64 GPUs with 4 quantities at 10 Hz fill half of it in that time."""

GPU_EXPLAINED_MAX: Final = 100_000
"""Spans of which it is remembered why they have no GPU data, for `otel-pipeline gpu --explain`: 28 bytes each."""

GPU_EXPLAINED_HELD_MAX: Final = 10_000
"""Of them those that wait for the journal's next write, a second away; further ones are not remembered."""

GPU_PARKED_HOSTS_MAX: Final = 8
"""Hosts of one batch whose spans wait on their own; those of further ones wait together."""

SIEVE_BYTES_KEPT: Final = 8 * 1024 * 1024
"""Of the buffers for what is new in one request, kept for the next one: a coalesced batch in which all is new."""

SIEVE_UNITS_KEPT: Final = 16_384
SIEVE_UNIT_BYTES_MAX: Final = 128
"""Attributes and texts known to be clean: names, routes, models, hosts of a platform; 2.4 MiB. Longer ones are searched
each time."""

SIEVE_KEYS_KEPT: Final = 4_096
"""Attribute keys known to be clean, of as many bytes: a platform has some hundred; 0.6 MiB."""

FOCUS_MISTAKES_MAX: Final = 1_000
"""Mistakes of a FOCUS file that are told: a wrong column is wrong in each of a million rows."""

SIEVE_NEW_KEYS_MAX: Final = 65_536
"""Attribute keys of one request that are not known yet, each time they stand there. With more all of it is decoded."""

SIEVE_NEW_UNITS_MAX: Final = 1_048_576
"""Attributes and texts of one request that are not known yet: some 70 MB of notes, and more than 50,000 spans have."""

LEDGER_TEXT_CHARS_MAX: Final = 512
"""Of a text in the ledger: names, ids of jobs and GPUs, reasons, quantities. None of them is a sentence of a user."""

LEDGER_HEADER_BYTES_MAX: Final = 256 * 1024 * 1024
"""The first line of a record for the ledger: usually 5 KB. Each span could have texts of its own, escaped."""

LEDGER_DIMENSIONS_MAX: Final = 32
"""Configured attributes by which costs are told apart, names of one host, attributes that prices look at."""

LEDGER_SPAN_GPUS_MAX: Final = 64
"""GPUs of one span: a machine has 16, with 7 instances each; a job over more machines has a span on each."""

LEDGER_PRESENCE_MAX: Final = 16_384
"""GPUs, and minutes of one GPU, in one record: all that a batch of samples can name."""

LEDGER_COUNTERS_MAX: Final = 8
"""Programs that read the energy counter of one GPU; usually there is one."""

LEDGER_CLAIM_S_MAX: Final = 48 * 3600.0
"""A span that used a GPU for longer is a broken clock: it would make the ledger pay for a GPU that was not there."""

LEDGER_NAMES_KEPT: Final = 65_536
"""Facts, users, GPUs and charges whose numbers are remembered, of each: some 500 bytes a fact, 32 MiB at most. A
platform has some hundred facts."""

LEDGER_BOOKING_S: Final = 2.0
"""Booking hours of GPUs goes on for so long between two calls of records: those wait in the outbox meanwhile."""

LEDGER_BLOCKS_MAX: Final = 16
"""Hours of GPUs that are booked in one transaction: 16 000 spans at one a GPU and 4 seconds, some 0.2 s."""

LEDGER_EDITIONS_KEPT: Final = 16
"""Price books of earlier days that are remembered: with the shipped rows alone some 100 KiB each, with 20,000 rows of
GPUs some 40 MiB. One change of prices is one."""

LEDGER_DEVIATIONS_MAX: Final = 1_000
"""Deviations of each kind that `ledger verify` names: where the store is broken, all of a million rows may be wrong."""

LEDGER_TRACES_TOGETHER: Final = 1_000
"""Traces whose spans `ledger verify` looks at together: some 10 MiB at 50 spans each."""

LEDGER_FIELDS_MAX: Final = 64
"""Kinds of quantities in one record: prices know 17."""

COST_PARENTS_MAX: Final = 16_384
"""Spans that are not there yet and have costs below them, in each of two generations: 2 MiB in all, and minutes of a
busy gateway. A power of two."""

COST_DEPTH_MAX: Final = 32
"""Spans above one that learn what it costs, if all are in one batch: jobs, stages, prompts and nodes are fewer."""

COST_KNOWN_MAX: Final = 16_384
"""Combinations of service, host, model, GPU and so on whose price is remembered: some 2 KB each."""

COST_DISTINCT_MAX: Final = 1_024
"""New ones in one batch: each takes up to 1 ms. A batch that has more is told apart by less: by model, not workflow."""

COST_GPUS_MAX: Final = 65_536
"""GPUs whose last minutes are remembered, so that each is told once: as many as a gateway sees."""

COST_RESERVATIONS_MAX: Final = 4_096
"""GPUs that are reserved by configuration: nobody writes down more."""

COST_LINES_MAX: Final = 10_000
"""Lines of one report, by cost; what is left becomes one line. A report of every job of a month is no report."""

COST_JOBS_MAX: Final = 1_000
"""Jobs with a line of their own in a report, the dearest first."""

COST_STARTUPS_MAX: Final = 200_000
"""Minutes of cold starts that a report tells apart: a month of a thousand workers that start seven times a day. What is
beyond stays nobody's."""

COST_STARTUPS_TOLD: Final = 20
"""Cold starts with a line of their own, the dearest first."""

COST_REASONS_MAX: Final = 50
"""Reasons why calls have no price that are told, the most frequent first."""

COST_BACKENDS_MAX: Final = 200
"""Backends with series of their own in the metrics of the ledger; further ones are one series."""

FOCUS_ROWS_MAX: Final = 5_000_000
"""Rows of one FOCUS file: some 3 GB. Export a shorter time, or by job."""

LEDGER_LATENESS_S: Final = 600.0
"""What workers send is seconds old, and minutes after an outage of theirs; what is older still is a correction."""

LEDGER_RETENTION_S: Final = 90 * 86_400.0
"""Spans one by one, some 220 bytes each: at one a second 1.7 GB."""

LEDGER_COMPACTED_MAX: Final = 4
"""Hours that are compacted in one transaction: of 100 GPUs at one span a second 1.4 million."""

LEDGER_CHARGE_NANO_MAX: Final = 10**15
"""Of one call, a million: what is above is a mistake of its sender, and sums of such would leave 64 bits."""
