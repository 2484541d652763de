"""The registry: lazy, helpful when a name is wrong, and unharmed by broken plug-ins."""

import importlib.metadata
import subprocess
import sys

import pytest

from bbox.errors import UsageError
from bbox.registry import Entry, PluginWarning, Registry, did_you_mean

TABLE = {"loads": Entry("json:loads", "read"), "dumps": Entry("json:dumps", "write")}


def plugged(monkeypatch, *points):
    """A registry that sees these entry points, written as name=value, in a group of its own."""
    made = [importlib.metadata.EntryPoint(*point.split("=", 1), "bbox.tests") for point in points]

    def entry_points(*, group):
        return [point for point in made if point.group == group]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return Registry("codec", "bbox.tests", TABLE)


def test_names_keep_the_order_of_the_table():
    assert Registry("codec", None, TABLE).names() == ("loads", "dumps")


def test_get_imports_on_demand():
    import json

    assert Registry("codec", None, TABLE).get("dumps") is json.dumps


def test_get_follows_dotted_attributes():
    import json

    registry = Registry("codec", None, {"d": Entry("json:JSONDecoder.decode")})
    assert registry.get("d") is json.JSONDecoder.decode


@pytest.mark.parametrize("typed", ["load", "LOADS", "laods"])
def test_unknown_name_suggests(typed):
    with pytest.raises(UsageError, match=f"unknown codec '{typed}'; did you mean 'loads'.* known are: loads, dumps"):
        Registry("codec", None, TABLE).get(typed)


def test_unknown_name_far_from_all_lists_them():
    with pytest.raises(UsageError, match=r"unknown codec 'zzz'; known are: loads, dumps"):
        Registry("codec", None, TABLE).get("zzz")


def test_did_you_mean_is_empty_where_nothing_is_near():
    assert did_you_mean("zzz", ["loads"]) == ""
    assert did_you_mean("x", []) == ""


def test_missing_package_names_what_to_install():
    registry = Registry("codec", None, {"x": Entry("bbox_no_such_module:f", needs="bbox-toolkit[x]")})
    with pytest.raises(UsageError, match=r"codec 'x' needs a package: pip install 'bbox-toolkit\[x\]'"):
        registry.get("x")


def test_own_entry_that_is_broken_is_not_hidden():
    with pytest.raises(ModuleNotFoundError):
        Registry("codec", None, {"x": Entry("bbox_no_such_module:f")}).get("x")


def test_plugins_are_merged_sorted_after_the_table(monkeypatch):
    import math

    registry = plugged(monkeypatch, "root=math:sqrt", "ceil=math:ceil")
    assert registry.names() == ("loads", "dumps", "ceil", "root")
    assert registry.get("root") is math.sqrt
    assert "plug-in" in registry.entry("root").summary


@pytest.mark.parametrize(
    "value", ["bbox_no_such_module:f", "math:no_such", "not a reference", "math", "bbox_raises:f", ""]
)
def test_broken_plugin_costs_an_error_only_when_asked_for(monkeypatch, tmp_path, value):
    (tmp_path / "bbox_raises.py").write_text("raise RuntimeError('two\\nlines')")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = plugged(monkeypatch, f"bad={value}", "root=math:sqrt")
    assert registry.names() == ("loads", "dumps", "bad", "root")
    registry.get("root")
    with pytest.raises(UsageError, match=r"codec 'bad' comes from the plug-in .* does not load") as caught:
        registry.get("bad")
    assert "\n" not in str(caught.value)


def test_broken_lists_and_warns(monkeypatch):
    registry = plugged(monkeypatch, "bad=bbox_no_such_module:f", "root=math:sqrt")
    with pytest.warns(PluginWarning, match=r"does not load"):
        assert list(registry.broken()) == ["bad"]


def test_plugin_cannot_take_a_name_of_bbox(monkeypatch):
    import json

    registry = plugged(monkeypatch, "loads=math:sqrt")
    with pytest.warns(PluginWarning, match=r"'loads', which is taken"):
        assert registry.names() == ("loads", "dumps")
    assert registry.get("loads") is json.loads


def test_two_plugins_of_one_name_keep_the_first_and_warn_once(monkeypatch):
    import math

    registry = plugged(monkeypatch, "p=math:sqrt", "p=math:ceil")
    with pytest.warns(PluginWarning, match=r"'p', which is taken"):
        registry.names()
    registry.names()
    assert registry.get("p") is math.ceil


def test_plugins_that_cannot_be_listed_warn(monkeypatch):
    def entry_points(*, group):
        raise OSError("metadata is gone")

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    registry = Registry("codec", "bbox.tests", TABLE)
    with pytest.warns(PluginWarning, match=r"metadata is gone"):
        assert registry.names() == ("loads", "dumps")


def test_an_installed_plugin_is_found(tmp_path):
    """A real distribution folder on the path, seen by a real interpreter."""
    info = tmp_path / "bbox_demo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bbox-demo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bbox.targets]\ndemo = demo_target:load\nbad = demo_gone:load\n")
    (tmp_path / "demo_target.py").write_text(
        "from bbox.targets import wrap\n"
        "def load(reference, *, options, trust, device):\n"
        "    return wrap(lambda rows: rows.flatten(1), name='demo:' + reference)\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import bbox.targets as t\n"
        "assert {'demo', 'bad'} <= set(t.KINDS.names()); print(t.load('demo:x').name)\n"
        "from bbox.errors import UsageError\n"
        "try: t.load('bad:x')\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("demo:x\ntarget kind 'bad' comes from the plug-in bbox-demo")


@pytest.mark.parametrize("module", ["bbox.registry", "bbox.targets", "bbox.targets.kinds", "bbox.data"])
def test_import_is_light(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'numpy', 'foolbox', 'PIL'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
