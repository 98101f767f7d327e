"""Which processes an expression means, what an agent leaves alone, and the nearest to what is not there."""

from __future__ import annotations

import pytest

from gotrace.errors import UsageError
from gotrace.find.names import Container
from gotrace.find.places import Place
from gotrace.find.processes import Executable, GoProcess
from gotrace.find.selection import EXCLUDED, Selection, nearest, parsed

_ID = "49f9e8e5395d57c1083996c09e2e6f042d5fe1ec0310facab32f94912b35ce59"


def process(exe: str = "/srv/api", pid: int = 7, age_s: float = 100, refusal: str = "", **at: object) -> GoProcess:
    place = Place("containerd", _ID, "2942c55e-c9cb-428a-93f4-eaf89c1f3ce0", unit=str(at.pop("unit", "")))
    executable = Executable("go1.27.3", "example.com/api", True, refusal)
    container = Container(**at)  # type: ignore[arg-type]
    return GoProcess(pid, 1, age_s, 1, exe.rpartition("/")[2][:15], exe, (1,), executable, place, container)


SHOP = {"name": "app", "namespace": "shop", "pod": "api-1", "labels": {"app": "web", "a.b/c": "x=y"}, "image": "shop:1"}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("exe=*/api", True),
        ("exe=api", False),
        ("name=a*", True),
        ("name=A*", False),
        ("pid=7", True),
        ("pid=77", False),
        ("namespace=shop,label:app=web", True),
        ("namespace=shop,label:app=db", False),
        ("label:a.b/c=x=y", True),
        ("label:none=*", False),
        ("container=app", True),
        (f"container={_ID[:12]}", True),
        (f"container={_ID}", True),
        (f"container={_ID[:8]}", False),
        ("image=shop:*", True),
        ("unit=*", False),
        ("pod=api-?", True),
        ("pod=2942c55e-*", True),
        ("service=*", False),
        ("annotation:x=*", False),
    ],
)
def test_an_expression(text: str, fits: bool) -> None:
    assert parsed(text).fits(process(**SHOP)) is fits
    assert str(parsed(text)) == text


def test_a_unit_goes_without_its_ending() -> None:
    assert all(parsed(f"unit={name}").fits(process(unit="api.service")) for name in ("api", "api.service", "a*"))


@pytest.mark.parametrize("text", ["", "api", "=api", "exe=", "nmae=api", "label=web", "label:=web", "exe=a,", "pid:x=1"])
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(UsageError, match="expected KEY=GLOB"):
        parsed(text)


def test_one_of_several_has_to_fit_and_none_of_the_excluded() -> None:
    selection = Selection((parsed("name=api"), parsed("name=db")), (parsed("namespace=test"),), min_age_s=30)
    assert selection.why_not(process()) == ""
    assert selection.why_not(process("/srv/db")) == ""
    assert selection.why_not(process("/srv/web")) == "not selected"
    assert selection.why_not(process(namespace="test")) == "excluded"
    assert selection.why_not(process(refusal="it was built with go1.15")) == "cannot be traced"
    assert selection.why_not(process(age_s=29.9)) == "too young"


def test_what_an_agent_leaves_alone() -> None:
    dull = [process("/usr/bin/containerd-shim-runc-v2"), process(namespace="kube-system"), process("/bin/otelcol-contrib")]
    assert {Selection().why_not(each) for each in dull} == {"excluded by default"}
    assert {Selection(defaults=False).why_not(each) for each in dull} == {""}
    assert Selection((parsed("name=otelcol*"),)).why_not(dull[2]) == ""  # who names a program means it
    assert Selection((parsed("container=*"),)).why_not(process("/bin/otelcol", name="otel")) == "excluded by default"
    assert Selection().why_not(process()) == ""
    assert all(parsed(text) for texts in EXCLUDED.values() for text in texts)


def test_the_nearest_names() -> None:
    there = [process(f"/srv/{name}") for name in ("prometheus", "api", "apiserver", "shop", "web", "db", "cart")]
    assert nearest([parsed("name=prometeus*")], there)[0] == "prometheus"
    assert nearest([parsed("name=server")], there)[0] == "apiserver"
    assert len(nearest([parsed("name=xyz")], there)) == 5
    assert nearest([parsed("container=xyz")], there) == nearest([parsed("name=x")], []) == []
