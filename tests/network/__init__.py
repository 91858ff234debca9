"""Tests that carry real packets, between network namespaces of their own."""
