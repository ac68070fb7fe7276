"""The page: complete, self-contained, and safe with whatever a converter prints."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import re
import sys
from html.parser import HTMLParser

import pytest

from compare.report.pages.run.html import render
from compare.report.records.run import RunRecord

VOID = {"meta", "input", "br", "link", "img"}


class Page(HTMLParser):
    """The page as a browser reads it: elements in balance, attributes, and the text outside scripts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: list[str] = []
        self.pieces: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.pieces).split())

    def values(self, attribute: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == attribute]


@pytest.fixture(scope="module")
def source(record: RunRecord) -> str:
    return render(record)


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_every_artifact_finding_claim_and_network_appears(record: RunRecord, page: Page) -> None:
    for artifact in record.artifacts:
        assert page.text.count(artifact.id) >= 2  # in the table, and in detail
        assert (artifact.sha256 or "") in page.text
    for finding in record.findings:
        assert f"{finding.artifact} {finding.fact}" in page.text
    for claim in record.claims:
        assert f"{claim.id} {claim.statement} {claim.verdict}" in page.text
        assert all(sentence in page.text for sentence in claim.evidence)
    for network in record.networks:
        assert network.id in page.text
    for name, version in record.versions.items():
        assert f"Version of {name}{version}" in page.text
    assert "needs litert-torch: pip install it" in page.text
    assert "Expected activation data type QUInt8" in page.text


def test_it_opens_with_what_matters_most(page: Page) -> None:
    assert page.text.index("11.10 points below its network") < page.text.index("Charts", 700)
    assert "torch-exact stays closest" in page.text


def test_elements_are_balanced_and_identifiers_unique(page: Page) -> None:
    assert not page.open
    assert len(page.values("id")) == len(set(page.values("id")))


def test_every_link_within_the_page_has_a_target(page: Page) -> None:
    targets = {value[1:] for value in page.values("href") if value.startswith("#")}
    assert targets <= set(page.values("id"))


def test_the_page_asks_nobody_for_anything(page: Page) -> None:
    assert not page.values("src")
    assert not [tag for tag, _, _ in page.attributes if tag in {"link", "img", "iframe", "base", "form"}]
    assert {value[:2] for value in page.values("href") if not value.startswith("#")} == {"./"}


def test_files_are_linked_relative_to_the_folder(page: Page) -> None:
    assert "./torch-exact-qat-fbgemm.tflite" in page.values("href")
    assert "./torch-fbgemm.onnx" in page.values("href")


def test_only_our_own_script_runs_whatever_the_data_says(hostile_record: RunRecord) -> None:
    page = Page(render(hostile_record))
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [value for value in page.values("content") if "default-src 'none'" in value]
    assert f"script-src 'sha256-{digest}';" in policy
    assert not page.open
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert page.text.count('<script>alert("1")</script>') > 20  # shown as text, in every place
    assert not [value for value in page.values("href") if value.lower().startswith("javascript")]
    assert not {"\x00", "\x1b", "\u202e"} & set("".join(page.pieces))


def test_a_long_log_keeps_its_start_and_its_end(record: RunRecord) -> None:
    log = "first line\n" + "chatter\n" * 20_000 + "last line"
    text = html.unescape(
        render(dataclasses.replace(record, artifacts=(dataclasses.replace(record.artifacts[0], log=log),)))
    )
    assert "first line" in text
    assert "last line" in text
    assert "148,020 characters are left out here; report.json has all" in text
    assert len(text) < 200_000


def test_the_table_sorts_by_figures_and_not_by_their_text(source: str) -> None:
    assert re.search(r'<td class="n loss" data-v="-0\.111">−11\.10</td>', source)
    assert re.search(r'<td class="n" data-v="24184">23\.6</td>', source)


def test_an_empty_run_says_so_and_has_no_charts(empty_record: RunRecord) -> None:
    page = Page(render(empty_record))
    for sentence in (
        "This run made no artifact",
        "No network was trained",
        "Nothing stood out",
        "No claim was examined",
    ):
        assert sentence in page.text
    assert "#charts" not in page.values("href")
    assert not page.open


def test_nothing_unknown_leaks_as_none_or_nan(page: Page, bare_record: RunRecord) -> None:
    for each in (page, Page(render(bare_record))):
        assert not re.search(r"\b(None|nan|NaN|inf|undefined)\b", each.text)
        assert not {"None", "nan"} & {value for _, _, value in each.attributes}


def test_the_same_record_gives_the_same_page(record: RunRecord, source: str) -> None:
    assert render(record) == source


def calls(record: RunRecord) -> int:
    """Calls of functions that a page takes: as good as a time, and the same on every machine."""
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(counted)
    try:
        render(record)
    finally:
        sys.setprofile(None)
    return count


def test_a_page_takes_as_long_as_it_has_artifacts(record: RunRecord) -> None:
    render(record)  # what is made once
    half = dataclasses.replace(record, artifacts=record.artifacts[: len(record.artifacts) // 2])
    assert calls(record) < 2.5 * calls(half)
