"""Names failures: class, rule, whether to try again, whose fault, and the fingerprint. Verdicts are remembered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from otel_pipeline.failures.chain import Link, chain
from otel_pipeline.failures.classes import CLASSES, PROVIDER_MAY_BE_AT_FAULT, UNKNOWN, Fault
from otel_pipeline.failures.evidence import Evidence
from otel_pipeline.failures.fingerprint import fingerprint
from otel_pipeline.failures.pack import Pack, Wrong, merged, shipped
from otel_pipeline.failures.rules import Rules, node, whereabouts
from otel_pipeline.limits import FAILURES_KEPT

if TYPE_CHECKING:
    from otel_pipeline.failures.pack import Rule

OUT_OF_MEMORY: Final = "GPU_OOM_ERROR"
NO_RULE: Final = "none"
DEADLINES: Final = ("TimeoutError", "Timeout")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure is."""

    name: str
    """The class."""
    rule: str
    retryable: bool
    fault: Fault
    fingerprint: str = ""
    """Empty if the failure was not looked at in full."""


class Classifier:
    """Rules of the operator first, then those of this package."""

    def __init__(self, own: Pack | None = None) -> None:
        self.pack: Final = merged([*([own] if own else []), *shipped()])
        self._rules = Rules(self.pack)
        self._coarse: dict[bytes, Verdict] = {}
        self._kept: dict[bytes, Verdict] = {}

    def remembered(self, known: Evidence) -> Verdict | None:
        """The verdict of an equal failure, if it is still there."""
        digest = known.digest()
        verdict = self._kept.pop(digest, None)
        if verdict is not None:
            self._kept[digest] = verdict
        return verdict

    def classify(self, known: Evidence) -> Verdict:
        """Look at everything that is known. Never raises, takes time linear in the length of the texts."""
        groups = chain(known.kind, known.message, known.stack)
        judged = _judged(groups[0])
        bits = self._rules.bits(known, judged)
        rule = self._rules.decide(bits)
        for group in groups[1:]:
            inner = _judged(group)
            marks = self._rules.bits(known, inner)
            found = self._rules.decide(marks, OUT_OF_MEMORY if rule else "")
            if found:
                rule, bits, judged = found, marks, inner
        name = rule.class_ if rule else UNKNOWN
        mark = fingerprint(name, judged, node(known), self._rules.service, lambda: whereabouts(known))
        verdict = self._verdict(rule, bits, mark)
        _keep(self._kept, known.digest(), verdict)
        return verdict

    def coarse(self, known: Evidence) -> Verdict:
        """Without message and stack trace: for the storm in which each failure has another message."""
        bare = Evidence(known.kind, span=known.span, attributes=known.attributes)
        digest = bare.digest()
        verdict = self._coarse.get(digest)
        if verdict is None:
            bits = self._rules.bits(bare, [Link(bare.kind, "", "")])
            verdict = self._verdict(self._rules.decide(bits), bits, "")
            _keep(self._coarse, digest, verdict)
        return verdict

    def wrong_examples(self) -> list[Wrong]:
        """The examples that their rule does not decide."""
        wrong = []
        for rule in self.pack.rules:
            for example in rule.examples:
                verdict = self.classify(example.evidence())
                if verdict.rule != rule.id:
                    wrong.append(Wrong(rule.id, example, verdict.name, verdict.rule))
        return wrong

    def _verdict(self, rule: Rule | None, bits: int, found: str) -> Verdict:
        if rule is None:
            return Verdict(UNKNOWN, NO_RULE, *CLASSES[UNKNOWN], found)
        retryable, fault = CLASSES[rule.class_]
        if rule.class_ in PROVIDER_MAY_BE_AT_FAULT and self._rules.has(bits, "provider"):
            fault = "provider"
        told = rule.retryable
        return Verdict(rule.class_, rule.id, retryable if told is None else told, rule.fault or fault, found)


def _keep(kept: dict[bytes, Verdict], digest: bytes, verdict: Verdict) -> None:
    """Remember, and forget what was not asked for the longest time."""
    while len(kept) >= FAILURES_KEPT:
        del kept[next(iter(kept))]
    kept[digest] = verdict


def _judged(links: list[Link]) -> list[Link]:
    """A deadline that cancelled what it was for is a deadline."""
    if not any(link.kind.endswith(DEADLINES) for link in links):
        return links
    return [link for link in links if not link.kind.endswith("CancelledError")] or links
