"""The S3 client: addresses, requests, answers, transfers."""

from kumo_crt.s3._client import S3Client
from kumo_crt.s3._results import GetResult, ObjectInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kumo_crt.s3._async_client import AsyncS3Client
    from kumo_crt.s3._deletions import DeleteResult
    from kumo_crt.s3._head import HeadResult
    from kumo_crt.s3._listings import UploadInfo, VersionInfo
    from kumo_crt.s3._putting import PutResult

__all__ = [
    "AsyncS3Client",
    "DeleteResult",
    "GetResult",
    "HeadResult",
    "ObjectInfo",
    "PutResult",
    "S3Client",
    "UploadInfo",
    "VersionInfo",
]


if not TYPE_CHECKING:
    # Where the others are, which are loaded when somebody asks for them.
    _ELSEWHERE = {
        "AsyncS3Client": "_async_client",
        "DeleteResult": "_deletions",
        "HeadResult": "_head",
        "PutResult": "_putting",
        "UploadInfo": "_listings",
        "VersionInfo": "_listings",
    }

    def __getattr__(name: str) -> object:
        if name in _ELSEWHERE:
            from importlib import import_module

            module = import_module(f"{__name__}.{_ELSEWHERE[name]}")
            globals()[name] = value = getattr(module, name)
            return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
