"""The judgement: each kind of fault is seen, and a healthy night passes."""

import itertools
from dataclasses import replace

import pandas as pd
import pytest

from audit.nights import (
    BROKEN,
    DARK,
    DAY,
    FIRST,
    MJD,
    RUN,
    SECOND,
    decision_without_rows,
    evidence,
    first_decision,
    raw,
    rows,
    second_decision,
    with_info,
    with_outcome,
    with_rows,
    without,
)
from prompt_processing.audit.evidence import RAW, MetricsRecord, Product, ProductType
from prompt_processing.audit.findings import Kind
from prompt_processing.audit.judge import judge
from prompt_processing.domain.errors import GivenUpError
from prompt_processing.domain.outcome import Outcome
from prompt_processing.domain.visit import DetectorVisitKey

DIFFERENCE = Product(ProductType("difference_image", "visit"), "LATISS", DAY * 100_000 + 7, 0)
STRANGER = DetectorVisitKey("LATISS", "2026-03-15T02:00:00.000", 0)


@pytest.fixture(scope="module")
def night():
    """Not to be changed."""
    return evidence()


def told(audit):
    return {(finding.kind, finding.where, finding.what) for finding in audit.findings}


def assert_found(audit, kind, *words):
    """There are findings of that kind only (metrics may differ beside them), and one says the words."""
    found = [
        finding for finding in audit.findings if finding.kind is kind or finding.kind is not Kind.METRICS
    ]
    assert {finding.kind for finding in found} == {kind}, told(audit)
    lines = [f"{finding.where} {finding.what}" for finding in found]
    assert any(all(word in line for word in words) for line in lines), lines


def test_a_healthy_night_passes(night):
    audit = judge(night)
    assert audit.findings == ()
    assert audit.passed
    assert audit.expected == 4
    assert audit.done == {"processed": 2, "skipped:no-image": 1, "failed:psf": 1}


@pytest.mark.parametrize("order", list(itertools.permutations([0, 1])))
def test_visits_that_came_in_any_order_pass(order):
    """Summaries were recomputed: what stands in the APDB is not what was decided."""
    made = first_decision(), second_decision(knows_the_first=False)
    night = evidence(*(made[index] for index in order))
    newest = night.rows["DiaObject"].set_index(["diaObjectId", "validityStartMjdTai"])
    assert newest.loc[(11, MJD + 0.001), "nDiaSources"] == 2
    assert judge(night).findings == ()


def test_a_pipeline_without_association_leaves_no_rows_and_no_alerts():
    assert judge(evidence(decision_without_rows())).findings == ()


def test_what_an_attempt_has_left_in_the_middle_is_no_fault_beside_being_unfinished(night):
    """Killed after the decision; after the rows; between two alerts; before the products."""
    nothing = {table: frame.iloc[:0] for table, frame in night.rows.items()}
    only_first = evidence(first_decision())
    for rest in (
        {"rows": nothing, "archived": {}, "products": {}},
        {"rows": only_first.rows, "archived": {}, "products": {}},
        {"rows": only_first.rows, "archived": without(only_first.archived, 12), "products": {}},
        {"rows": only_first.rows, "archived": only_first.archived, "products": {}},
    ):
        unfinished = with_outcome(only_first, FIRST, None)
        audit = judge(replace(unfinished, **rest, metrics={}))
        assert_found(audit, Kind.UNFINISHED, FIRST.group)
        failed = with_outcome(only_first, FIRST, Outcome.failed(GivenUpError("5 engines")))
        assert judge(replace(failed, **rest, metrics={})).findings == ()


def test_an_object_that_was_known_before_the_night_is_not_counted(night):
    def grown(objects):
        return objects.assign(nDiaSources=objects["nDiaSources"] + 5, firstDiaSourceMjdTai=MJD - 100.0)

    old = replace(with_rows(with_rows(night, "DiaObject", grown), "DiaObjectLast", grown), begin=MJD - 1)
    assert judge(old).findings == ()


def test_a_raw_of_another_visit_in_the_central_butler_is_nobodys_fault(night):
    """Templates are built from raws too."""
    template = Product(RAW, "LATISS", DAY * 100_000 + 99, 0)
    assert judge(replace(night, products={**night.products, template: ("LATISS/raw/all",)})).passed


# What is lost or unfinished.


def test_a_visit_that_nobody_has_claimed_is_lost(night):
    audit = judge(replace(night, claims=tuple(claim for claim in night.claims if claim.key != DARK)))
    assert_found(audit, Kind.LOST, DARK.group)
    assert sum(audit.done.values()) == 3


def test_a_visit_without_an_outcome_is_unfinished_and_its_state_is_told(night):
    waiting = with_outcome(night, DARK, None, error="engine-lost: too much memory", attempts=3)
    assert_found(judge(waiting), Kind.UNFINISHED, DARK.group, "3 attempts", "too much memory")
    running = with_outcome(night, DARK, None, working="host/12/0")
    assert_found(judge(running), Kind.UNFINISHED, "host/12/0")


@pytest.mark.parametrize("reason", ["no-image", "cancelled"])
def test_an_image_of_a_visit_that_was_given_up_is_dropped(night, reason):
    night = with_outcome(night, DARK, Outcome.skipped(reason))
    key = raw(DAY * 100_000 + 10)
    assert judge(night).passed
    assert_found(judge(replace(night, raws={**night.raws, key: DARK})), Kind.MISMATCHING, reason, key)


# Outcomes that are not true.


def test_processed_without_a_decision(night):
    audit = judge(with_outcome(night, BROKEN, Outcome.processed()))
    assert_found(audit, Kind.MISMATCHING, BROKEN.group, "no decision")


def test_skipped_with_a_decision(night):
    audit = judge(with_outcome(night, FIRST, Outcome.skipped("no-template")))
    assert_found(audit, Kind.MISMATCHING, FIRST.group, "skipped:no-template", "there is a decision")


def test_a_decision_that_cannot_be_read(night):
    damaged = replace(night, damaged_decisions={BROKEN: "not a zip"})
    assert_found(judge(damaged), Kind.MISMATCHING, BROKEN.group, "not a zip")


def test_an_outcome_that_hides_a_flag_of_the_decision(night):
    late = with_info(night, FIRST, flags=("late",))
    assert_found(judge(late), Kind.MISMATCHING, FIRST.group, "late")


def test_a_decision_of_a_visit_that_the_ledger_does_not_know(night):
    forgotten = replace(
        night,
        expected=night.expected - {FIRST},
        claims=tuple(claim for claim in night.claims if claim.key != FIRST),
        raws=without(night.raws, raw(DAY * 100_000 + 7)),
    )
    assert any("the ledger does not know" in finding.what for finding in judge(forgotten).findings)
    assert not judge(forgotten).passed


def test_two_current_outcomes(night):
    assert_found(judge(replace(night, surplus_outcomes=1)), Kind.DUPLICATED, "ledger", "1 current outcomes")


def test_a_visit_that_stands_twice_in_the_ledger(night):
    audit = judge(replace(night, claims=(*night.claims, night.claims[0])))
    assert_found(audit, Kind.DUPLICATED, FIRST.group, "2 times")


# Decisions that are not what they say.


def test_a_decision_under_the_key_of_another_visit(night):
    audit = judge(with_info(night, FIRST, group="other"))
    assert (
        "mismatching",
        f"LATISS {FIRST.group} detector 0",
        "decision: it is about LATISS other detector 0",
    ) in told(audit)


def test_a_decision_from_the_image_of_another_visit(night):
    swapped = replace(night, raws={**night.raws, raw(DAY * 100_000 + 7): BROKEN})
    assert_found(judge(swapped), Kind.MISMATCHING, FIRST.group, "is an image of", BROKEN.group)


def test_a_decision_from_an_image_that_has_never_arrived(night):
    invented = replace(night, raws=without(night.raws, raw(DAY * 100_000 + 7)))
    assert_found(judge(invented), Kind.MISMATCHING, FIRST.group, "has never arrived")


def test_a_decision_that_names_another_exposure_than_its_raw(night):
    audit = judge(with_info(night, FIRST, exposure=DAY * 100_000 + 70))
    assert any("is not exposure" in finding.what for finding in audit.findings)


def test_a_decision_whose_alerts_and_sources_do_not_fit(night):
    for packets, words in (
        (lambda made: made[:1], "sources without their alert: 12"),
        (lambda made: (*made, (13, "x")), "alerts without their source: 13"),
        (lambda made: (*made, made[0]), "1 alerts are there twice"),
    ):
        decided = night.decisions[FIRST]
        changed = replace(decided, packets=packets(decided.packets))
        archived = {**dict(changed.packets), **dict(night.decisions[SECOND].packets)}
        audit = judge(replace(night, decisions={**night.decisions, FIRST: changed}, archived=archived))
        assert_found(audit, Kind.MISMATCHING, FIRST.group, words)


# The APDB.


@pytest.mark.parametrize("table", ["DiaSource", "DiaForcedSource", "DiaObject"])
def test_rows_that_are_missing(night, table):
    """All rows of a visit, or only one: a transaction that was not one."""
    names = {"DiaSource": "visit", "DiaForcedSource": "visit", "DiaObject": "validityStartMjdTai"}
    gone = with_rows(night, table, lambda frame: frame[frame[names[table]] != frame[names[table]].min()])
    findings = [finding for finding in judge(gone).findings if finding.where.endswith("detector 0")]
    assert any(finding.what.startswith(f"{table}: not in the APDB: 2 rows") for finding in findings)
    one_gone = with_rows(night, table, lambda frame: frame.iloc[1:])
    assert not judge(one_gone).passed
    if table != "DiaObject":
        unfinished = judge(with_outcome(one_gone, FIRST, None))
        assert any("not in the APDB: 1 rows" in finding.what for finding in unfinished.findings)


@pytest.mark.parametrize("table", ["DiaSource", "DiaForcedSource"])
@pytest.mark.parametrize(
    ("column", "value"), [("psfFlux", 99.0), ("psfFluxErr", None), ("diaObjectId", 999), ("band", "i")]
)
def test_rows_with_other_values_than_decided(night, table, column, value):
    def falsified(frame):
        frame = frame.copy()
        frame[column] = frame[column].mask(frame.index == 0, value).astype(frame[column].dtype)
        return frame

    audit = judge(with_rows(night, table, falsified))
    assert any(
        finding.kind is Kind.MISMATCHING and table in finding.what and FIRST.group in finding.where
        for finding in audit.findings
    ), told(audit)


@pytest.mark.parametrize("table", ["DiaSource", "DiaForcedSource"])
def test_rows_of_a_decided_visit_that_were_not_decided(night, table):
    """An attempt that has associated anew writes its sources under other numbers."""
    more = rows(table, DAY * 100_000 + 7, MJD, [111], [111])
    doubled = with_rows(night, table, lambda frame: pd.concat([frame, more], ignore_index=True))
    assert_found(judge(doubled), Kind.DUPLICATED, FIRST.group, table, "111")


@pytest.mark.parametrize("table", ["DiaSource", "DiaForcedSource"])
def test_rows_of_a_visit_that_nobody_has_decided(night, table):
    more = rows(table, DAY * 100_000 + 50, MJD, [111], [111])
    stray = with_rows(night, table, lambda frame: pd.concat([frame, more], ignore_index=True))
    assert_found(judge(stray), Kind.DUPLICATED, str(DAY * 100_000 + 50), table, "no decision")


def test_versions_of_objects_that_nobody_has_decided(night):
    def with_another(objects):
        another = objects.iloc[:1].assign(diaObjectId=999, nDiaSources=0, firstDiaSourceMjdTai=None)
        return conformed(pd.concat([objects, another], ignore_index=True), objects)

    audit = judge(with_rows(with_rows(night, "DiaObject", with_another), "DiaObjectLast", with_another))
    assert any(finding.kind is Kind.DUPLICATED and "999" in finding.what for finding in audit.findings), told(
        audit
    )


def conformed(frame, like):
    return frame.astype(like.dtypes.to_dict())


@pytest.mark.parametrize(("column", "value"), [("r_psfFluxMean", 1.0), ("ra", 10.001), ("nDiaSources", 7)])
def test_a_summary_that_is_neither_decided_nor_true(night, column, value):
    def falsified(objects):
        changed = objects[column].mask(objects["diaObjectId"] == 12, value)
        return objects.assign(**{column: changed.astype(objects[column].dtype)})

    night = with_rows(night, "DiaObject", falsified)
    if column in night.rows["DiaObjectLast"]:
        night = with_rows(night, "DiaObjectLast", falsified)
    assert_found(judge(night), Kind.MISMATCHING, "DiaObject", "12 at MJD", "what their sources say")


def test_a_late_visit_that_did_not_renew_the_summaries():
    """The second visit was stored first, and still says what it said before the first one came."""
    before = evidence(second_decision(knows_the_first=False))
    after = evidence(second_decision(knows_the_first=False), first_decision())
    old = before.rows["DiaObject"]

    def not_renewed(objects):
        earlier = objects[objects["validityStartMjdTai"] < MJD + 0.0005]
        return conformed(pd.concat([earlier, old], ignore_index=True), objects)

    def last_not_renewed(objects):
        others = objects[~objects["diaObjectId"].isin(before.rows["DiaObjectLast"]["diaObjectId"])]
        return conformed(pd.concat([others, before.rows["DiaObjectLast"]], ignore_index=True), objects)

    stale = with_rows(with_rows(after, "DiaObject", not_renewed), "DiaObjectLast", last_not_renewed)
    assert_found(judge(stale), Kind.MISMATCHING, "11 at MJD", "counts 1 sources of 2")


def test_a_late_visit_that_took_the_place_of_the_newest_version(night):
    first = night.rows["DiaObject"].iloc[:1]
    assert first["diaObjectId"].item() == 11

    def replaced(last):
        others = last[last["diaObjectId"] != 11]
        return conformed(pd.concat([others, first[list(last.columns)]], ignore_index=True), last)

    assert_found(judge(with_rows(night, "DiaObjectLast", replaced)), Kind.MISMATCHING, "DiaObjectLast", "11")


def test_a_version_that_does_not_end_when_the_next_one_starts(night):
    def endless(objects):
        return objects.assign(validityEndMjdTai=float("nan"))

    audit = judge(with_rows(night, "DiaObject", endless))
    assert_found(audit, Kind.MISMATCHING, "11 at MJD", "validity")


# Alerts.


def test_alerts_that_are_missing_damaged_or_other_than_decided(night):
    for archived, words in (
        (without(night.archived, 11), "1 alerts are not in the archive: 11"),
        ({**night.archived, 11: None}, "cannot be read: 11"),
        ({**night.archived, 11: "other"}, "not those decided: 11"),
    ):
        assert_found(judge(replace(night, archived=archived)), Kind.MISMATCHING, FIRST.group, words)


def test_alerts_that_nobody_has_decided(night):
    stray = replace(night, archived={**night.archived, 111: "x"})
    assert_found(judge(stray), Kind.DUPLICATED, "alert archive", "111")


def test_alerts_that_are_out_before_their_rows(night):
    early = with_outcome(night, SECOND, None)
    early = with_rows(early, "DiaSource", lambda frame: frame[frame["visit"] == DAY * 100_000 + 7])
    assert any("not in the APDB" in finding.what for finding in judge(early).findings)


def test_products_that_are_stored_before_the_alerts_are_out(night):
    early = replace(with_outcome(night, SECOND, None), archived=without(night.archived, 21))
    assert any("not in the archive: 21" in finding.what for finding in judge(early).findings)


# Several decisions.


def test_two_decisions_on_one_exposure(night):
    copy = night.decisions[FIRST]
    twice = replace(
        with_outcome(night, BROKEN, Outcome.processed()),
        decisions={
            **night.decisions,
            BROKEN: replace(copy, info=copy.info.model_copy(update={"group": BROKEN.group})),
        },
    )
    whats = [finding.what for finding in judge(twice).findings if finding.kind is Kind.DUPLICATED]
    for kind in ("exposure", "visit", "raw", "alert", "DiaSource"):
        assert any(what.startswith(f"{kind} ") and BROKEN.group in what for what in whats), (kind, whats)


# Products.


def test_products_that_are_missing_or_unreadable(night):
    gone = replace(night, products=without(night.products, DIFFERENCE))
    assert_found(judge(gone), Kind.MISMATCHING, FIRST.group, "difference_image")
    unreadable = replace(night, unreadable_products=frozenset({DIFFERENCE}))
    assert_found(judge(unreadable), Kind.MISMATCHING, FIRST.group, "file is gone", "difference_image")


def test_a_raw_that_is_missing_in_the_central_butler(night):
    product = Product(RAW, "LATISS", DAY * 100_000 + 8, 0)
    assert_found(
        judge(replace(night, products=without(night.products, product))),
        Kind.MISMATCHING,
        SECOND.group,
        "raw",
    )


def test_every_snap_is_in_the_central_butler(night):
    second_snap = raw(DAY * 100_000 + 70)
    snaps = (raw(DAY * 100_000 + 7), second_snap)
    night = replace(with_info(night, FIRST, raws=snaps), raws={**night.raws, second_snap: FIRST})
    assert_found(judge(night), Kind.MISMATCHING, FIRST.group, "1 products", "raw")
    product = Product(RAW, "LATISS", DAY * 100_000 + 70, 0)
    assert judge(replace(night, products={**night.products, product: ("LATISS/raw/all",)})).findings == ()


def test_products_in_two_runs(night):
    runs = (RUN, RUN.replace("-14", "-15"))
    assert_found(
        judge(replace(night, products={**night.products, DIFFERENCE: runs})), Kind.DUPLICATED, FIRST.group
    )


def test_products_of_another_pipeline(night):
    other = (RUN.replace("ApPipe", "SingleFrame"),)
    assert_found(
        judge(replace(night, products={**night.products, DIFFERENCE: other})), Kind.MISMATCHING, "SingleFrame"
    )


def test_products_that_belong_to_no_decision(night):
    for stray in (DIFFERENCE._replace(value=50), DIFFERENCE._replace(detector=3)):
        audit = judge(replace(night, products={**night.products, stray: (RUN,)}))
        assert_found(audit, Kind.DUPLICATED, "central Butler", "difference_image")


def test_a_pipeline_that_is_not_known(night):
    audit = judge(replace(night, pipelines={}))
    assert_found(audit, Kind.MISMATCHING, "pipeline ApPipe is not known")


# What is told, and is no fault.


def test_metrics_never_fail_an_audit(night):
    record = MetricsRecord(DAY * 100_000 + 7, 2)
    for metrics, words in (
        ({SECOND: night.metrics[SECOND]}, "no metrics"),
        ({**night.metrics, FIRST: (record, record)}, "2 files"),
        ({**night.metrics, FIRST: (record._replace(visit=1),)}, "visit 1"),
        ({**night.metrics, FIRST: (record._replace(n_alerts=7),)}, "7 alerts instead of 2"),
        ({**night.metrics, DARK: (record,)}, "no decision"),
    ):
        audit = judge(replace(night, metrics=metrics))
        assert_found(audit, Kind.METRICS, words)
        assert audit.passed
    assert_found(judge(replace(night, damaged_metrics=("a.json: cut off",))), Kind.METRICS, "a.json")


def test_late_visits_are_told(night):
    late = with_outcome(with_info(night, FIRST, flags=("late",)), FIRST, Outcome.processed("late"))
    audit = judge(late)
    assert_found(audit, Kind.LATE, FIRST.group)
    assert audit.passed


def test_what_nobody_expected_is_told_and_judged_all_the_same(night):
    audit = judge(replace(night, expected=night.expected - {FIRST}))
    assert_found(audit, Kind.UNEXPECTED, FIRST.group, "processed")
    assert audit.passed
    assert audit.expected == 3
    broken = replace(night, expected=night.expected - {FIRST}, archived=without(night.archived, 11))
    assert not judge(broken).passed


def test_raws_that_belong_to_nothing_are_told(night):
    for owner, words in ((None, "cannot be told"), (STRANGER, STRANGER.group)):
        audit = judge(replace(night, raws={**night.raws, "some/raw.fits": owner}))
        assert_found(audit, Kind.UNEXPECTED, "some/raw.fits", words)
        assert audit.passed


def test_raws_that_were_not_used_are_told(night):
    extra = judge(replace(night, raws={**night.raws, "second.fits": FIRST}))
    assert_found(extra, Kind.EXTRA, "second.fits", FIRST.group)
    expired = with_outcome(night, DARK, Outcome.skipped("expired"))
    audit = judge(replace(expired, raws={**night.raws, "old.fits": DARK}))
    assert_found(audit, Kind.EXTRA, "old.fits", "expired")
    assert audit.passed


def test_pointers_that_cannot_be_read_are_a_fault(night):
    assert_found(judge(replace(night, damaged_pointers=("0.json: junk",))), Kind.MISMATCHING, "0.json")


def test_events_that_cannot_be_observed_are_told(night):
    audit = judge(replace(night, not_observed=("events.jsonl line 3: not JSON",)))
    assert_found(audit, Kind.NOT_OBSERVED, "line 3")
    assert audit.passed


def test_the_gravest_findings_come_first(night):
    mixed = replace(
        with_outcome(night, DARK, None), metrics={}, surplus_outcomes=1, archived=without(night.archived, 11)
    )
    kinds = [finding.kind for finding in judge(mixed).findings]
    assert kinds == sorted(kinds, key=list(Kind).index)
    assert kinds[0] is Kind.UNFINISHED
    assert kinds[-1] is Kind.METRICS


def test_alerts_that_are_left_to_the_relay_are_pending_and_not_missing(night):
    sent = without(night.archived, 11, 12)
    assert_found(judge(replace(night, archived=sent)), Kind.MISMATCHING, "2 alerts are not in the archive")
    left = with_outcome(night, FIRST, Outcome.processed(), pending=frozenset({"alerts"}))
    audit = judge(replace(left, archived=sent))
    assert_found(audit, Kind.PENDING, FIRST.group, "2 alerts are left to the relay")
    assert not audit.passed


def test_metrics_that_are_left_to_the_relay_are_no_fault(night):
    left = with_outcome(night, FIRST, Outcome.processed(), pending=frozenset({"metrics"}))
    audit = judge(replace(left, metrics=without(night.metrics, FIRST)))
    assert {
        (finding.kind, finding.what) for finding in audit.findings if finding.where.count(FIRST.group)
    } == {(Kind.METRICS, "the metrics are left to the relay")}
    assert audit.passed
