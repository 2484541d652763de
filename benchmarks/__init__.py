"""Measurements that are not tests: bbox's attacks beside other people's, on equal terms."""
