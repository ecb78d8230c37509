"""APPEND: takes a chunk into an HC table and a KV store in memory."""
