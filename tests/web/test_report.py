import base64
import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from prompt_processing.domain.errors import RepositoryError
from prompt_processing.factory.create import create_repository
from prompt_processing.views.collect import collect
from prompt_processing.web.report import render, to_json, write_page


class Page(HTMLParser):
    """What a browser would load, and the text that a person would read."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.words, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.addresses += [
            value for name, value in attrs if name in {"src", "href"} and tag not in {"use", "path"}
        ]
        if tag not in {"meta", "br", "img", "hr", "link"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def report(results):
    return collect(results.repo, results.night)


@pytest.fixture(scope="module")
def page(report):
    return render(report)


def test_visits_are_told_with_outcome_stages_and_latency(results, report):
    first, second, lost = report.visits
    assert (first.status, first.n_alerts, first.latency_s, first.visit) == ("processed", 1, 4.0, 101)
    assert (second.status, second.flags, second.n_alerts) == ("processed", ("fallback",), 3)
    assert (lost.status, lost.reason, lost.visit, lost.latency_s) == ("failed", "bad-raw", None, None)
    assert list(first.stages) == ["preload", "wait", "isr", "alerts", "products"]
    # Alerts were out after 3 + 8 + 2 + 0.5 s, which was 4 s after the shutter closed.
    assert first.shutter_close_s == pytest.approx(9.5)


def test_the_best_alerts_come_first_and_flagged_ones_are_left_out(results, report):
    first, second, false, flagged = results.alert_ids
    assert [alert.id for alert in report.best] == [second, first, false]
    assert report.n_alerts == 4
    (bad,) = [alert for alert in report.alerts if alert.disqualified]
    assert bad.id == flagged
    assert "pixelFlags_saturatedCenter" in bad.flags
    for alert in report.best:
        for picture in (alert.cutouts.science, alert.cutouts.template, alert.cutouts.difference):
            assert picture.shape == (30, 30)


def test_alerts_are_compared_with_the_truth(results, report):
    result = report.assessment
    assert result.n_bright == 4
    assert result.completeness_bright == 0.5
    assert [visit.n_false for visit in result.visits] == [0, 1]
    assert result.flux_bias == pytest.approx(0.02, abs=1e-6)
    assert result.astrometric_error_arcsec == pytest.approx(0.0, abs=1e-6)
    assert {alert.id: alert.truth for alert in report.best} == {
        results.alert_ids[0]: "transient",
        results.alert_ids[1]: "transient",
        results.alert_ids[2]: None,
    }


def test_the_light_curve_is_that_of_the_object_seen_most_often(report):
    curve = report.light_curve
    assert curve.object_id == 77
    assert [point.visit for point in curve.points] == [101, 102]
    assert [point.flux for point in curve.points] == [1020.0, 1020.0]
    assert all(point.detected for point in curve.points)


def test_the_page_needs_nothing_from_outside(page):
    addresses = Page(page).addresses
    assert addresses
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in addresses)
    assert "<script" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_the_page_is_well_formed_and_says_what_matters(page, results):
    parsed = Page(page)
    assert parsed.open == []
    text = " ".join(" ".join(parsed.words).split())
    assert "2 / 3" in text
    assert "50 %" in text
    assert "bad-raw" in text
    assert "fallback" in text
    assert str(results.alert_ids[1]) in text
    assert str(results.alert_ids[3]) not in text
    assert "no true event" in text
    assert "1.020 ± 0.050 µJy" in text
    assert "2/2" in text
    assert "0/2" in text


def test_texts_from_outside_cannot_become_markup(page):
    assert "truncated &lt;at&gt; byte 9" in page
    assert "<at>" not in page


def test_every_alert_has_its_three_pictures_loaded_when_needed(page, report):
    pictures = re.findall(r'<img loading="lazy" alt="(\w+) cutout" src="data:image/png;base64,([^"]+)"', page)
    assert [name for name, _ in pictures] == ["science", "template", "difference"] * len(report.best)
    assert all(base64.b64decode(content).startswith(b"\x89PNG\r\n") for _, content in pictures)


def test_the_data_are_the_same_as_on_the_page(report):
    content = json.loads(to_json(report))
    assert content["assessment"]["completeness_bright"] == 0.5
    assert content["median_latency_s"] == 4.0
    assert [visit["status"] for visit in content["visits"]] == ["processed", "processed", "failed"]
    assert len(content["alerts"]) == 4
    assert "cutouts" not in content["best"][0]
    # A number that is not there is null, because JSON has no word for NaN.
    assert {alert["flux_err"] for alert in content["alerts"]} == {50.0, None}


def test_without_a_truth_there_is_no_comparison(results):
    report = collect(results.repo)
    page = render(report)
    assert report.assessment is None
    assert "false alerts" not in page
    assert "<figcaption>Difference flux" in page


def test_an_empty_repository_has_a_page_too(tmp_path):
    create_repository(tmp_path / "repo")
    page = write_page(collect(tmp_path / "repo"), tmp_path / "pages" / "report.html").read_text()
    assert Page(page).open == []
    assert "No visit has been processed" in page


def test_a_truth_that_cannot_be_read_is_named(results, tmp_path):
    night = tmp_path / "night"
    shutil.copytree(results.night, night)
    (night / "truth" / "obs1" / "transients.ecsv").unlink()
    with pytest.raises(RepositoryError, match=r"night/truth: .*transients\.ecsv"):
        collect(results.repo, night)


def test_a_damaged_alert_is_named(results, tmp_path):
    repo = tmp_path / "repo"
    shutil.copytree(results.repo, repo)
    damaged = next((repo / "alerts").rglob("*.avro.gz"))
    damaged.write_bytes(b"not gzip")
    with pytest.raises(RepositoryError, match=damaged.name):
        collect(repo)
