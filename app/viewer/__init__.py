"""The viewer: volumes read by workers, shown slice by slice."""
