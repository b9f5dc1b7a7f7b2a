"""Tests of the S3 client and the checksums, against real servers."""
