"""What the documents say, held to what the package does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gpucnn
from gpucnn import settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_ten_lines(word: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Runs the README's block of Python with ``word`` in it on a small Shapes; the names it leaves."""
    from gpucnn.data import shapes

    code = next(block for block in blocks(README, "python") if word in block)
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 10
    monkeypatch.setattr(shapes, "TRAIN_IMAGES", 128)
    monkeypatch.setattr(shapes, "TEST_IMAGES", 16)
    monkeypatch.setenv("GPUCNN_DEVICE", "cpu")
    namespace: dict[str, object] = {}
    gpucnn.manual_seed(0)
    exec(code, namespace)
    model = namespace["model"]
    assert isinstance(model, gpucnn.nn.Module)
    assert all(parameter.grad is not None for parameter in model.parameters())
    return namespace


def test_the_loop_in_the_readme_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = run_ten_lines("DataLoader", monkeypatch)["loss"]
    assert 1.0 < loss.item() < 4.0  # type: ignore[attr-defined]


def test_the_call_in_the_readme_trains(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = run_ten_lines("training.fit", monkeypatch)["records"]  # type: ignore[misc]
    assert 1.0 < record.train_loss < 4.0
    assert capsys.readouterr().out.strip() == str(record.test_accuracy)


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_the_function_in_the_readme_has_the_gradient_of_a_product(device: str) -> None:
    code = next(block for block in blocks(README, "python") if "class Multiply" in block)
    namespace: dict[str, object] = {"gpucnn": gpucnn}
    exec(code, namespace)
    x = gpucnn.tensor([2.0, -3.0], device=device, requires_grad=True)
    y = gpucnn.tensor([5.0, 7.0], device=device, requires_grad=True)
    z = namespace["Multiply"].apply(x, y)  # type: ignore[attr-defined]
    z.backward(gpucnn.tensor([1.0, 10.0], device=device))
    assert z.numpy().tolist() == [10.0, -21.0]
    assert x.grad is not None
    assert y.grad is not None
    assert x.grad.numpy().tolist() == [5.0, 70.0]
    assert y.grad.numpy().tolist() == [2.0, -30.0]


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_variable_is_on_the_environment_page() -> None:
    page = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.replace(r"\|", "/").splitlines() if line.startswith("| `")]
    listed = {row[0].strip("| `"): [cell.strip(" |") for cell in row[1:3]] for row in rows}
    assert listed == {v.name: [v.takes.replace("|", "/"), v.default] for v in settings.VARIABLES}


def test_every_variable_that_the_package_reads_is_listed() -> None:
    found = {
        name
        for file in (ROOT / "gpucnn").rglob("*.py")
        for name in re.findall(r"environ(?:\.get)?[\[(]\s*\"(GPUCNN_\w+)\"", file.read_text(encoding="utf-8"))
    }
    assert found <= {variable.name for variable in settings.VARIABLES}


def test_the_version_is_the_same_everywhere() -> None:
    assert f"\nversion: {gpucnn.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## [{gpucnn.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_dependency_has_its_line_in_contributing() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = [re.split(r"[><=;\s]", dependency)[0] for dependency in project["dependencies"]]
    assert [name for name in names if f"\n| {name} |" not in contributing] == []


def test_no_second_cupy_can_come_with_another_extra() -> None:
    """cuda12 and cuda13 have one CuPy each, and no other extra has any."""
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    cupys = {
        extra: [line.partition(">")[0] for line in lines if line.startswith("cupy")] for extra, lines in extras.items()
    }
    assert cupys == {
        "cuda12": ["cupy-cuda12x"], "cuda13": ["cupy-cuda13x"], "test": [], "peers": [], "lint": [], "tensorboard": [],
    }  # fmt: skip
    with_cupy = [line for extra in ("cuda12", "cuda13") for line in extras[extra]]
    assert all("sys_platform" in line and "darwin" not in line for line in with_cupy)
