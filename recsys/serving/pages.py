"""The page at ``/``, its files, and a plain page of what is served where; all read once, at the start."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "File", "describe", "read_files"]

FOLDER = Path(__file__).parent / "static"

# Not by the tables of the machine, which differ.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}


@dataclass(frozen=True)
class File:
    """What is sent of a file.

    Attributes
    ----------
    content : bytes
    type : str
        Of the media.
    tag : str
        Changes with the content.
    """

    content: bytes
    type: str
    tag: str


def read_files(folder: Path) -> dict[str, File]:
    """The files of a folder, by their names in it: no request ever names a path of the disk.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    dict of str to File

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "page.css").write_text("p { margin: 0 }")
    ...     read_files(Path(folder))["page.css"].type
    'text/css; charset=utf-8'
    """
    return {
        path.relative_to(folder).as_posix(): _read(path, kind)
        for path in sorted(folder.rglob("*"))
        if (kind := _TYPES.get(path.suffix)) is not None and path.is_file()
    }


def _read(path: Path, kind: str) -> File:
    content = path.read_bytes()
    return File(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def describe(schema: Mapping[str, Any]) -> str:
    """An OpenAPI document as a page that needs no script.

    Parameters
    ----------
    schema : dict

    Returns
    -------
    str

    Examples
    --------
    >>> "<h2>GET /x</h2>" in describe({"info": {"title": "T"}, "paths": {"/x": {"get": {"summary": "X"}}}})
    True
    """
    parts = [f"<h1>{html.escape(schema['info']['title'])}</h1>", '<p><a href="/openapi.json">openapi.json</a></p>']
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            parts.append(f"<h2>{method.upper()} {html.escape(path)}</h2>")
            parts.append(f"<p>{html.escape(operation.get('description', operation.get('summary', '')))}</p>")
            shown = {name: operation[name] for name in ("parameters", "requestBody") if name in operation}
            if shown:
                parts.append(f"<pre>{html.escape(json.dumps(shown, indent=1))}</pre>")
    parts += ["<h2>Schemas</h2>", f"<pre>{html.escape(json.dumps(schema.get('components', {}), indent=1))}</pre>"]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(schema["info"]["title"])}</title>'
    return head + "\n".join(parts) + "</html>"
