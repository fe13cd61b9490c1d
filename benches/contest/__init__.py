"""Parts of `benches/peers.py`."""
