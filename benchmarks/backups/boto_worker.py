"""boto3's process: copies a directory with its transfer manager; prints the seconds of that.

With ``checkpoint`` the directory is a database, of which RocksDB makes a checkpoint first: what its
BackupEngine does without ``share_table_files``, to S3.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config

_PART = 8 << 20
_THREADS = 16


@contextlib.contextmanager
def _checkpoint_of(directory: str) -> Iterator[str]:
    from rocksdict import Checkpoint, Options, Rdict

    # Opened in a copy made of links: opening writes to a database.
    database_path, target = f"{directory}.opened", f"{directory}.checkpoint"
    shutil.copytree(directory, database_path, copy_function=os.link)
    for name in os.listdir(database_path):
        if not name.endswith(".sst"):
            path = os.path.join(database_path, name)
            os.unlink(path)
            shutil.copyfile(os.path.join(directory, name), path)
    try:
        options = Options(raw_mode=True)
        options.set_disable_auto_compactions(True)
        database = Rdict(database_path, options)
        Checkpoint(database).create_checkpoint(target)
        yield target
        database.close()
    finally:
        shutil.rmtree(database_path, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)


def _copy(job: dict[str, Any], directory: str) -> None:
    client = boto3.client(
        "s3", config=Config(s3={"addressing_style": "path"}, max_pool_connections=2 * _THREADS)
    )
    config = TransferConfig(
        multipart_chunksize=_PART, max_concurrency=_THREADS, preferred_transfer_client="classic"
    )
    bucket, prefix = job["bucket"], job["prefix"] + "/"
    with create_transfer_manager(client, config) as manager:
        if job["restores"]:
            os.makedirs(directory, exist_ok=True)
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
            futures = [
                manager.download(bucket, key, os.path.join(directory, key.removeprefix(prefix)))
                for key in keys
            ]
        else:
            extra = {"ChecksumAlgorithm": "CRC32C"}
            futures = [
                manager.upload(os.path.join(directory, name), bucket, prefix + name, extra)
                for name in sorted(os.listdir(directory))
            ]
        for future in futures:
            future.result()


def main() -> None:
    job = json.loads(sys.argv[1])
    begun = time.perf_counter()
    if job["checkpoint"]:
        with _checkpoint_of(job["directory"]) as directory:
            _copy(job, directory)
    else:
        _copy(job, job["directory"])
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    main()
