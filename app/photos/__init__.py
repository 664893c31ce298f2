"""The photos: the newest picture of a public feed, fetched every quarter of an hour."""
