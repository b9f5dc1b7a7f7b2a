"""Tests of kumo_crt."""
