"""Files, buckets, databases and computers: what every other package reads and writes through.

Takes paths, URLs and bytes; returns bytes, tables of text, and failures as errors of ours. Retries, file
modes, durability and how tables are read are decided here, and nowhere else.
"""
