"""What has to be changed in a captured database, so that it can live somewhere else."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from kumo_crt import _core
from kumo_crt.backup._capture._options import mended_options
from kumo_crt.backup._capture._types import Capture, CapturedFile


@contextlib.contextmanager
def mended(taken: Capture) -> Iterator[Capture]:
    """Replaces files that name places by copies that do not.

    OPTIONS must not name the directory of the original's logs (`mended_options`), and the MANIFEST
    no other directory for table files than the first: they are gathered in one. CURRENT must not
    name another MANIFEST by and by, which it would if somebody opened what was a checkpoint.
    """
    with contextlib.ExitStack() as stack:
        files = []
        (manifest,) = (file.path for file in taken.files if file.kind == "manifest")
        for file in taken.files:
            content = _mended_content(file, manifest)
            if content is not None or (file.kind == "manifest" and taken.scattered):
                import tempfile  # rarely needed, and slow to load

                scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="kumo-capture-"))
                copy = Path(scratch) / file.path
                if content is not None:
                    copy.write_bytes(content)
                else:
                    shutil.copyfile(file.source, copy)
                    _core.clear_path_ids(copy)
                file.release()
                size = copy.stat().st_size
                file = file._replace(source=copy, size=size, temporary=True)
            files.append(file)
        yield taken._replace(files=tuple(files))


def _mended_content(file: CapturedFile, manifest: str) -> bytes | None:
    if file.kind == "current" and not file.temporary:
        return f"{manifest}\n".encode()
    if file.kind != "options":
        return None
    content = file.source.read_bytes()
    changed = mended_options(content)
    return changed if changed != content else None
