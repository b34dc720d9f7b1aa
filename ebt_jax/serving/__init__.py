"""A policy behind a socket: bytes that may be hostile, requests that may be many, answers that are never crossed."""
