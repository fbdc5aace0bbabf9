"""``python -m benchmarks``: dwebsocket and its peers, measured side by side."""
