"""Keys and values of a database as files of their own in S3, and back: see docs/format.md.

An export is a column family, or a range of its keys, as sorted SST files, which RocksDB takes in
without writing them again, or as JSON lines, which anything can read.

    from kumo_crt import export

    export.export("/var/lib/users-db", "s3://exports/users/2026-11", prefix=b"user:")
    export.import_("s3://exports/users/2026-11", "/var/lib/copy-db")
"""

from kumo_crt.export._results import ExportedFile, ExportInfo, ExportReport, ImportReport
from kumo_crt.export._run import export, import_, inspect

__all__ = [
    "ExportInfo",
    "ExportReport",
    "ExportedFile",
    "ImportReport",
    "export",
    "import_",
    "inspect",
]
