"""The report on disk: figures, tables and the page, in a directory of its own, complete or not at all."""

import base64
import io
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tlkit.errors import UserError
from tlkit.study.report import drawing
from tlkit.study.report.section import Drawn, LeftOut, Section, Shown

PAGE = "report.html"
PNG_DPI = 200


def check_out(out: Path) -> None:
    """Refuses a directory that holds something else than a report.

    Raises:
        UserError: it is a file, or a directory with other content.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"expected a directory for the report, got the file {out}")
    if out.exists() and any(out.iterdir()) and not (out / PAGE).exists():
        raise UserError(f"expected a new or empty directory, or one with an earlier report, got {out} with other files")


def write(out: Path, sections: Sequence[Section | LeftOut], extra: Sequence[Shown], page: dict[str, object]) -> Path:
    """Writes figures (PNG and PDF), tables (CSV) and the page; returns the page's path.

    Everything is written beside `out` first, so that an earlier report stays whole until this one is.

    Args:
        out: the report's directory.
        sections: in order.
        extra: tables that belong to no section.
        page: what else the template needs.
    """
    building = out.resolve().with_name(f".{out.resolve().name}.building")
    shutil.rmtree(building, ignore_errors=True)
    try:
        (building / "figures").mkdir(parents=True)
        (building / "tables").mkdir()
        present = [section for section in sections if isinstance(section, Section)]
        images = {}
        with drawing.style():
            for section in present:
                for drawn in section.figures:
                    images[drawn.name] = _save(drawn, building / "figures")
        for shown in [*extra, *(table for section in present for table in section.tables)]:
            shown.frame.to_csv(building / "tables" / f"{shown.name}.csv", index=False)
        left_out = [section for section in sections if isinstance(section, LeftOut)]
        (building / PAGE).write_text(_page(present, left_out, images, page), encoding="utf-8")
        _move(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return out / PAGE


def _save(drawn: Drawn, folder: Path) -> str:
    """Saves a figure twice and returns it as SVG for the page."""
    drawn.figure.draw_without_rendering()
    drawn.figure.set_layout_engine("none")  # laid out once, not for every file
    drawn.figure.savefig(folder / f"{drawn.name}.png", dpi=PNG_DPI)
    drawn.figure.savefig(folder / f"{drawn.name}.pdf", metadata={"CreationDate": None})
    buffer = io.BytesIO()
    drawn.figure.savefig(buffer, format="svg", metadata={"Date": None}, dpi=150)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _page(
    sections: Sequence[Section], left_out: Sequence[LeftOut], images: dict[str, str], page: dict[str, object]
) -> str:
    folder = resources.files("tlkit.study.report") / "page"
    environment = Environment(
        loader=PackageLoader("tlkit.study.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        sections=sections,
        left_out=left_out,
        images=images,
        style=Markup((folder / "report.css").read_text(encoding="utf-8")),
        scripts=[Markup((folder / name).read_text(encoding="utf-8")) for name in ("format.js", "report.js")],
        plotly=Markup(get_plotlyjs()),
        **page,
    )


def _move(building: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in ("figures", "tables"):
        shutil.rmtree(out / name, ignore_errors=True)
        (building / name).rename(out / name)
    (building / PAGE).replace(out / PAGE)
