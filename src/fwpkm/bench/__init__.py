"""Measurements that print ratios from one run: what `fwpkm bench` does."""
